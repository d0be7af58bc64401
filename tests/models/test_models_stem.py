"""STEM: contract of the house, and who learns from what."""

import numpy as np
import pytest
import torch
from models_contract import embed, group, linear, make_model, mlp, price
from multi_task_contract import CHECKS, CTR, KIND, WATCH, MultiCase

from tzrec.errors import ConfigError

HIDDEN = "hidden_units: [16]"


def own(name, features):
    return group(name, features, more=f'embedding_name_suffix: "{name}"')


GROUPS = {
    "shared": own("shared", "user item price"),
    "ctr": own("ctr", "user item"),
    "watch": own("watch", "user tags"),
    "kind": own("kind", "item tags price"),
}


def inputs(state, rows, name):
    parts = []
    columns = {"shared": "user item", "ctr": "user item", "watch": "user tags", "kind": "item tags"}
    for column in columns[name].split():
        parts.append(embed(state[f"{column}_emb_{name}"], rows[column], mean=column == "tags"))
    if name in ("shared", "kind"):
        parts.append(price(rows))
    return np.concatenate(parts, 1)


def oracle(towers, *, shared, own, gate_mlp=False, tower_mlp=True):
    def compute(state, rows):
        x = {name: inputs(state, rows, name) for name in ("shared", *towers)}
        experts = [mlp(state, f"experts.shared_experts.{e}", x["shared"]) for e in range(shared)]
        for t, name in enumerate(towers):
            experts += [mlp(state, f"experts.task_experts.{t}.{e}", x[name]) for e in range(own)]
        result = {}
        for t, name in enumerate(towers):
            both = np.concatenate([x[name], x["shared"]], 1)
            both = mlp(state, f"experts.gates.{t}.mlp", both) if gate_mlp else both
            scores = np.exp(linear(state, f"experts.gates.{t}.linear", both))
            weights = scores / scores.sum(1, keepdims=True)
            h = sum(weights[:, [e]] * expert for e, expert in enumerate(experts))
            h = mlp(state, f"task_towers.{name}.tower_mlp", h) if tower_mlp else h
            y = linear(state, f"task_towers.{name}.linear", h)
            result["y_watch" if name == "watch" else f"logits_{name}"] = (
                y if name == "kind" else y[:, 0]
            )
        return result

    return compute


MLP = f"mlp {{ {HIDDEN} }}"
TWO = f"task_towers {{ {CTR} {MLP} }} task_towers {{ {WATCH} {MLP} }}"
CASES = {
    "defaults": MultiCase(
        GROUPS["watch"]
        + GROUPS["shared"]
        + GROUPS["ctr"]
        + f"stem {{ expert_mlp {{ {HIDDEN} }} {TWO} }}",
        oracle(["ctr", "watch"], shared=1, own=1),
    ),
    "more_experts": MultiCase(
        "".join(GROUPS.values())
        + f"""stem {{ expert_mlp {{ hidden_units: [24, 16] }} gate_mlp {{ hidden_units: 8 }}
        num_shared_expert: 2 num_task_expert: 3
        task_towers {{ {CTR} }} task_towers {{ {WATCH} }} task_towers {{ {KIND} }} }}""",
        oracle(["ctr", "watch", "kind"], shared=2, own=3, gate_mlp=True, tower_mlp=False),
    ),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_contract(name, check):
    check(CASES[name])


def test_a_task_moves_the_shared_tables_and_its_own_only():
    case = CASES["more_experts"]
    model = case.model()
    batch = case.batch(model, case.rows(16))
    model.predict(batch)["y_watch"].sum().backward()
    moved = {
        name.split(".")[-2].rpartition("_")[2]
        for name, parameter in model.named_parameters()
        if "embedding_bags" in name and parameter.grad is not None and (parameter.grad != 0).any()
    }
    assert moved == {"shared", "watch"}


def test_what_other_tasks_know_counts_forward():
    case = CASES["defaults"]
    model = case.model().eval()
    rows = case.rows(16)
    before = model.predict(case.batch(model, rows))["logits_ctr"]
    table = next(p for n, p in model.named_parameters() if "tags_emb_watch" in n)
    with torch.no_grad():
        table.add_(1)
    assert not torch.equal(before, model.predict(case.batch(model, rows))["logits_ctr"])


def test_each_tower_has_a_group():
    text = GROUPS["shared"] + GROUPS["ctr"] + f"stem {{ expert_mlp {{ {HIDDEN} }} {TWO} }}"
    with pytest.raises(ConfigError, match="there is no feature group 'watch'"):
        make_model(text, labels=["clk", "watch"])


def test_experts_are_needed():
    text = CASES["defaults"].config.replace("stem {", "stem { num_task_expert: 0")
    with pytest.raises(ConfigError, match="num_task_expert 0"):
        make_model(text, labels=["clk", "watch"])
