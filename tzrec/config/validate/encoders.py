"""Rules for sequence encoders: what they read, and whether the widths fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tzrec.config.messages import which_field
from tzrec.config.problem import Problem
from tzrec.config.validate.frame import Context, quoted
from tzrec.errors import did_you_mean

_NEEDS_QUERY = ("din_encoder", "simple_attention", "multi_window_din_encoder")


def encoders(context: Context) -> Iterator[Problem]:
    """Every encoder reads a sequence group of its group, and each of those has an encoder."""
    for number, group in enumerate(context.config.model_config.feature_groups):
        path = f"model_config.feature_groups[{number}]"
        nested = {sub.group_name or group.group_name: sub for sub in group.sequence_groups}
        if not nested or not group.sequence_encoders:
            continue  # reported by the rules for groups
        read = set()
        for index, wrapper in enumerate(group.sequence_encoders):
            here = f"{path}.sequence_encoders[{index}]"
            kind = which_field(wrapper, "seq_module")
            if kind is None:
                if not context.is_broken(here):
                    yield Problem(here, "is empty: choose an encoder, for example din_encoder")
                continue
            encoder = getattr(wrapper, kind)
            source = encoder.input or (next(iter(nested)) if len(nested) == 1 else "")
            if source in nested:
                read.add(source)
                yield from _fits(context, f"{here}.{kind}", kind, encoder, nested[source])
            else:
                read |= set(nested)  # which one was meant is not known
                yield _bad_input(f"{here}.{kind}.input", source, nested)
        for name in nested:
            if name not in read and not context.is_broken(path):
                yield Problem(path, f"no sequence_encoders reads the sequence group {name!r}")


def _bad_input(where: str, source: str, nested: dict[str, Any]) -> Problem:
    if not source:
        return Problem(where, f"is missing: choose one of {quoted(nested)}")
    return Problem(where, f"there is no sequence group {source!r}{did_you_mean(source, nested)}")


def sequence_widths(context: Context, names: Any) -> tuple[int | None, int | None]:
    """Returns the width of query and of sequence of a group of features.

    A width is None when the config leaves it open; a query that is not there has 0.
    """
    known = context.features_by_name
    query: int | None = 0
    sequence: int | None = 0
    for name in names:
        dim = known[name].dim if name in known else None
        if name in known and known[name].is_sequence:
            sequence = None if dim is None or sequence is None else sequence + dim
        else:
            query = None if dim is None or query is None else query + dim
    return query, sequence


def _fits(context: Context, path: str, kind: str, encoder: Any, group: Any) -> Iterator[Problem]:
    query, sequence = sequence_widths(context, group.feature_names)
    if kind in _NEEDS_QUERY:
        yield from query_fits(path, kind, query, sequence)
    if kind == "multi_window_din_encoder" and not encoder.windows_len:
        yield Problem(f"{path}.windows_len", "is missing: how many steps each window holds")
    if kind == "self_attention_encoder":
        width, heads = encoder.multihead_attn_dim, encoder.num_heads
        if width > 0 and heads > 0 and width % heads:
            yield Problem(
                f"{path}.multihead_attn_dim",
                f"{width} cannot be divided among {heads} heads (num_heads)",
            )


def query_fits(path: str, kind: str, query: int | None, sequence: int | None) -> Iterator[Problem]:
    """Yields problems of an attention between a query and a sequence of these widths."""
    if query == 0:
        yield Problem(
            path,
            f"{kind} compares the sequence with a query, and the group has none",
            "add a feature that is no sequence, such as the id of the candidate item",
        )
    elif query is None or not sequence:
        return  # a group without a sequence is reported as such
    elif kind == "din_encoder" and query > sequence:
        yield Problem(
            path,
            f"the query is {query} wide, wider than the sequence with {sequence}",
            "the query features must not be wider than the sequence features",
        )
    elif kind != "din_encoder" and query != sequence:
        yield Problem(path, f"{kind} needs equal widths: query {query}, sequence {sequence}")


def output_width(kind: str, encoder: Any, sequence: int | None) -> int | None:
    """Returns the width of an encoder's output, None when the config leaves it open."""
    if kind == "self_attention_encoder":
        return int(encoder.multihead_attn_dim)
    if kind == "multi_window_din_encoder" and sequence is not None:
        return sequence * (len(encoder.windows_len) + 1)
    return sequence


RULES = (encoders,)
