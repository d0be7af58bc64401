"""Facts of the multi-task rankers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tzrec.config.model_facts.base import DEEP, ModelFacts, name_of_parameters
from tzrec.config.problem import Problem, warning
from tzrec.config.specs import LOSSES

if TYPE_CHECKING:
    from tzrec.config.validate.frame import Context

TOWERS = ("task_towers",)


def lone_expert(context: Context) -> Iterator[Problem]:
    """Gates choose among several experts."""
    if context.model.num_expert == 1:
        yield warning(
            f"{context.model_path}.num_expert",
            "is 1: the gates have nothing to choose from, all tasks share the one expert",
        )


def _ple(context: Context) -> Iterator[Problem]:
    """Extraction networks are there, have names of their own, and experts of one width."""
    networks, path = context.model.extraction_networks, context.model_path
    if not networks and not context.is_broken(path):
        yield Problem(
            f"{path}.extraction_networks",
            "is missing: the model has no experts",
            "extraction_networks { network_name expert_num_per_task task_expert_net { ... } "
            "share_num share_expert_net { ... } }",
        )
    seen: set[str] = set()
    for index, network in enumerate(networks):
        here = f"{path}.extraction_networks[{index}]"
        if network.network_name in seen:
            yield Problem(f"{here}.network_name", f"{network.network_name!r} is given twice")
        seen.add(network.network_name)
        if network.HasField("network_name"):
            yield from name_of_parameters(f"{here}.network_name", network.network_name)
        yield from _shared_experts(here, network)


def _shared_experts(here: str, network: Any) -> Iterator[Problem]:
    units = (network.task_expert_net.hidden_units, network.share_expert_net.hidden_units)
    if network.share_num and not network.HasField("share_expert_net"):
        yield Problem(
            f"{here}.share_expert_net",
            f"is missing: share_num is {network.share_num}",
            "write the MLP of the shared experts, or remove share_num",
        )
    elif network.HasField("share_expert_net") and not network.share_num:
        yield warning(f"{here}.share_expert_net", "has no effect without share_num")
    elif network.share_num and all(units) and units[0][-1] != units[1][-1]:
        yield Problem(
            f"{here}.share_expert_net.hidden_units",
            f"shared experts are {units[1][-1]} wide and those of tasks {units[0][-1]}, but a gate "
            "adds them up",
            "end hidden_units of task_expert_net and share_expert_net with one number",
        )


def _esmm(context: Context) -> Iterator[Problem]:
    """Both towers predict probabilities, of different labels."""
    for task in context.tasks:
        if task.message.tower_name == "ctcvr":
            yield Problem(
                f"{task.path}.tower_name",
                "is 'ctcvr', the name of click and conversion together",
                "for example ctr and cvr",
            )
        for index, name in enumerate(task.chosen_losses()):
            if name in LOSSES and LOSSES[name].kind != "binary":
                yield Problem(
                    f"{task.path}.losses[{index}].{name}",
                    f"ESMM multiplies probabilities, which {name} does not give",
                    "use binary_cross_entropy or binary_focal_loss",
                )
    labels = [task.label for task in context.tasks]
    if len(labels) == 2 and labels[0] and labels[0] == labels[1]:
        yield Problem(
            f"{context.tasks[1].path}.label_name",
            f"is {labels[1]!r}, the label of ctr_tower",
            "ctr_tower learns the click, cvr_tower the conversion",
        )


def _esmm_metrics(context: Context) -> list[str]:
    tasks = context.tasks
    names = [name for task in tasks for name in task.metric_names()]
    names += tasks[-1].metric_names("_ctcvr") if tasks else []
    return names + [name for task in tasks for name in task.loss_names()]


MODELS: Mapping[str, ModelFacts] = {
    "SimpleMultiTask": ModelFacts(
        "tzrec.models.simple_multi_task", first_group=DEEP, towers=TOWERS
    ),
    "MMoE": ModelFacts("tzrec.models.mmoe", first_group=DEEP, towers=TOWERS, check=lone_expert),
    "PLE": ModelFacts("tzrec.models.ple", first_group=DEEP, towers=TOWERS, check=_ple),
    "ESMM": ModelFacts(
        "tzrec.models.esmm",
        first_group=DEEP,
        towers=("ctr_tower", "cvr_tower"),
        check=_esmm,
        metric_names=_esmm_metrics,
    ),
}
