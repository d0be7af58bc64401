"""Rules that commands apply to a config beside those of `tzrec.config.validate`."""

from __future__ import annotations

from collections.abc import Iterator

from tzrec.config.problem import Problem
from tzrec.config.validate.frame import Context
from tzrec.protos.data_pb2 import FG_NONE


def generation(context: Context) -> Iterator[Problem]:
    """Features can be generated; see `tzrec.fg.check_config.generation`."""
    kinds = {feature.kind for feature in context.features}
    if context.config.data_config.fg_mode == FG_NONE and "tokenize_feature" not in kinds:
        return
    # Here, because it loads Arrow, which most configs are checked without.
    from tzrec.fg import check_config

    yield from check_config.generation(context)


RULES = (generation,)
