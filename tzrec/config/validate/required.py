"""What must be written.

The schema marks fields ``required`` that the interface never enforced; ours are those without
which nothing can run. A required field that has a default counts as written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tzrec.config.messages import AnyField, children, is_required, which_field
from tzrec.config.model_facts import MODELS
from tzrec.config.problem import Problem
from tzrec.config.validate.frame import Context

# Checked by rules that know more, or not needed.
_OPTIONAL = {
    "EasyRecConfig.train_input_path",
    "EasyRecConfig.eval_input_path",
    "EasyRecConfig.model_dir",
    "IdFeature.expression",
    "RawFeature.expression",
    "DINEncoder.input",
    "SimpleAttention.input",
    "PoolingEncoder.input",
    "SelfAttentionEncoder.input",
    "MultiWindowDINEncoder.input",
}

_HINTS = {
    "sparse_optimizer": "for example sparse_optimizer { adagrad_optimizer { lr: 0.001 } "
    "constant_learning_rate {} }",
    "dense_optimizer": "for example dense_optimizer { adam_optimizer { lr: 0.001 } "
    "constant_learning_rate {} }",
    "embedding_dim": "for example embedding_dim: 16",
}


def required_fields(context: Context) -> Iterator[Problem]:
    """Every required field without a default is written."""
    yield from _missing(context.config, "", context)


def _missing(message: Any, path: str, context: Context) -> Iterator[Problem]:
    descriptor = message.DESCRIPTOR
    fields: list[AnyField] = list(descriptor.fields)
    for field in fields:
        name = f"{descriptor.name}.{field.name}"
        if (
            is_required(field)
            and not field.has_default_value
            and name not in _OPTIONAL
            and not message.HasField(field.name)
        ):
            where = f"{path}.{field.name}" if path else field.name
            yield Problem(where, "is missing", _HINTS.get(field.name, ""))
    for child_path, _, child in children(message, path):
        if not _is_later(child, child_path, context):
            yield from _missing(child, child_path, context)


def _is_later(message: Any, path: str, context: Context) -> bool:
    """Tells whether a part is reported as not supported, so that its inside does not matter."""
    if path == context.model_path:
        return message.DESCRIPTOR.name not in MODELS
    if context.for_serving and path == "train_config":
        return True
    return path.rpartition(".")[2] == "feature_store_config"


def sections(context: Context) -> Iterator[Problem]:
    """Sections and paths that a job needs are there."""
    config = context.config
    needed = ["data_config", "model_config"]
    if not context.for_serving:
        needed.append("train_config")
    for name in needed:
        if not config.HasField(name) and not context.is_misspelt(name):
            yield Problem(name, f"is missing: write {name} {{ ... }}")
    if not config.feature_configs and not context.is_misspelt("feature_configs"):
        yield Problem(
            "feature_configs",
            "is missing: there is no feature",
            "one feature_configs { id_feature { ... } } or { raw_feature { ... } } per feature",
        )
    if context.for_serving:
        return
    for name, flag in (("train_input_path", "--train-input-path"), ("model_dir", "--model-dir")):
        if not getattr(config, name).strip() and not context.is_misspelt(name):
            yield Problem(name, f"is missing: write {name} or give {flag}")


def chosen(context: Context) -> Iterator[Problem]:
    """Every oneof that must be decided is."""
    config = context.config
    for number, wrapper in enumerate(config.feature_configs):
        here = f"feature_configs[{number}]"
        if which_field(wrapper, "feature") is None and not context.is_broken(here):
            yield Problem(here, "is empty: choose id_feature, raw_feature or another kind")
    if config.HasField("model_config") and not context.model_field:
        yield Problem(
            "model_config", "no model is chosen", f"models of this version: {', '.join(MODELS)}"
        )


RULES = (sections, chosen, required_fields)
