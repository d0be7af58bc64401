"""Requests that a machine makes from a server's own description, and what its answers must be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import schemathesis
from export_kinds import export_multi_task, make_match, make_tree
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serving_jobs import export_rank

from tzrec.serving.servable import EMBED, Servable

KINDS: dict[str, Callable[[Path], Path]] = {
    "rank": export_rank,
    "multi_task": export_multi_task,
    "retriever": make_match,
    "tree": make_tree,
}
ROUTES = [
    ("rank", "predict"),
    ("multi_task", "predict"),
    ("retriever", "retrieve"),
    ("retriever", "embed"),
    ("tree", "predict"),
    ("tree", "retrieve"),
    ("tree", "embed"),
]
_CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
# What a description of one value cannot say: how long columns are together, which ids there are.
_TOGETHER = {"wrong_length", "invalid_value", "too_many_rows", "too_many_items", "text_too_long"}


def signature_key(servable: Servable, capability: str) -> str:
    """Returns the key of ``servable.signatures``."""
    return f"{EMBED}/{servable.towers[0]}" if capability == EMBED else capability


def example_table(servable: Servable, capability: str, num_rows: int = 3) -> pa.Table:
    """Returns rows that the servable answers."""
    inputs = servable.signatures[signature_key(servable, capability)].inputs
    for part in servable._parts():
        if {column.name for column in inputs} <= set(part.rows.schema.names):
            return part.rows.select([column.name for column in inputs]).slice(0, num_rows)
    raise AssertionError("no part has the columns")


def _has_no_items(body: Any) -> bool:
    """Whether nothing says where a column would be that the context lacks.

    A column may be in the items instead, which is more than the description tells.
    """
    return isinstance(body, dict) and body.get("items") == []


def fuzz(described: Any, path: str, mode: str, number: int, **call: Any) -> Counter[int]:
    """Sends requests made from a description; returns status → how many.

    The requests are the same each time. ``positive`` ones are as described, and must be answered
    or refused for what no description of single values says; ``negative`` ones are not.
    """
    statuses: Counter[int] = Counter()
    operation = described[path]["POST"]
    is_negative = mode == "negative"

    @settings(
        max_examples=number,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
    def ask(case: Any) -> None:
        case.query = {}  # for Arrow bodies only, which cannot be described
        answer = case.call(**call)
        statuses[answer.status_code] += 1
        must_refuse = is_negative and answer.status_code != 413 and not _has_no_items(case.body)
        more = [negative_data_rejection] if must_refuse else []
        case.validate_response(answer, checks=[*_CHECKS, *more])
        if answer.status_code >= 400 and not is_negative:
            error = answer.json()["error"]
            assert error["code"] in _TOGETHER, error
            assert error["field"], error

    ask()
    return statuses
