"""Rules for embedding tables that several features share."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from tzrec.config.feature_facts import FeatureFacts
from tzrec.config.problem import Problem
from tzrec.config.validate.frame import Context, group_type_name

_DEFAULT_WIDE_DIM = 4


@dataclasses.dataclass(frozen=True)
class _Use:
    """One feature of one group asking for a table."""

    feature: FeatureFacts
    suffix: str
    asks: dict[str, Any]


def table_uses(context: Context) -> Iterator[tuple[bool, str, _Use]]:
    """Yields whether looked up in steps, the final table name, and who asks for what."""
    wide_dim, wide_init = _wide(context)
    for group in context.config.model_config.feature_groups:
        kind = group_type_name(group)
        outer = group.embedding_name_suffix
        parts = [(kind.endswith("SEQUENCE"), group.feature_names, outer)]
        parts += [
            (True, sub.feature_names, sub.embedding_name_suffix or outer)
            for sub in group.sequence_groups
        ]
        for stepwise, names, suffix in parts:
            for name in names:
                feature = context.features_by_name.get(name)
                if feature is None or not feature.is_sparse:
                    continue
                if context.is_broken(feature.path):
                    continue
                wide = kind == "WIDE" and not stepwise
                config = feature.config
                asks = {
                    "number of rows": feature.rows,
                    "hash table": feature.hash_table,
                    "embedding_dim": wide_dim if wide else feature.dim,
                    "init_fn": (wide_init if wide else "") or config.init_fn,
                    "data_type": config.data_type,
                    "trainable": config.trainable,
                }
                if not stepwise:
                    asks["pooling"] = config.pooling.lower()
                table = feature.embedding_name + ("_wide" if wide else "")
                table += f"_{suffix}" if suffix else ""
                yield stepwise, table, _Use(feature, suffix, asks)


def _wide(context: Context) -> tuple[int, str]:
    if context.model_field is None:
        return _DEFAULT_WIDE_DIM, ""
    model = context.model
    return (
        int(getattr(model, "wide_embedding_dim", _DEFAULT_WIDE_DIM)),
        str(getattr(model, "wide_init_fn", "")),
    )


def sharing(context: Context) -> Iterator[Problem]:
    """Features that share a table agree on it."""
    first: dict[tuple[bool, str], _Use] = {}
    told = set()
    for stepwise, table, use in table_uses(context):
        known = first.setdefault((stepwise, table), use)
        pair = (known.feature.name, use.feature.name)
        if known.feature.name == use.feature.name or pair in told:
            continue
        for what, value in use.asks.items():
            if value != known.asks[what]:
                told.add(pair)
                yield Problem(
                    f"{use.feature.path}.embedding_name",
                    f"features {known.feature.name!r} and {use.feature.name!r} share the table "
                    f"{table!r}, but their {what} differs: {known.asks[what]!r} and {value!r}",
                    f"make the {what} equal, or give them different embedding_name",
                )
                break


def suffixes(context: Context) -> Iterator[Problem]:
    """A table name means one table: it is not reached by two different suffixes."""
    first: dict[tuple[bool, str], _Use] = {}
    for stepwise, table, use in table_uses(context):
        known = first.setdefault((stepwise, table), use)
        if known.suffix != use.suffix:
            yield Problem(
                f"{use.feature.path}.embedding_name",
                f"table {table!r} would be reached with embedding_name_suffix {use.suffix!r} "
                f"(feature {use.feature.name!r}) and {known.suffix!r} "
                f"(feature {known.feature.name!r})",
                "choose names so that embedding_name + suffix is unique",
            )


RULES = (sharing, suffixes)
