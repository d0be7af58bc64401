"""What a request asks for: its rows, and the arguments beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from tzrec.errors import did_you_mean
from tzrec.serving.arrow import read_table, rows_of_table
from tzrec.serving.decode import SHAPES, Rows, read_rows
from tzrec.serving.errors import RequestError, invalid
from tzrec.serving.json_body import kind_of, parse_json, shorten
from tzrec.serving.options import ServeOptions
from tzrec.serving.schema import Column, Signature
from tzrec.serving.servable import EMBED, PREDICT, RETRIEVE, Servable
from tzrec.serving.values import read_values, whole

DEFAULT_K = 10
# Shorter bodies take as long in either way.
_MANY_BYTES = 2048
# Found items of a request, over all of its rows: bounds the answer.
MAX_FOUND = 1_000_000

OUTPUTS, FEATURES, K, EXCLUDE, TOWER = "outputs", "features", "k", "exclude", "tower"

Document = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request in either form, before it is known what it is about.

    Attributes:
        document: the arguments; of JSON, the rows too.
        rows: reads the rows for the columns that are asked for.
        options: limits.
        shapes: keys of the document that are rows.
    """

    document: Document
    rows: Callable[[Sequence[Column]], Rows]
    options: ServeOptions
    shapes: tuple[str, ...] = ()


def asked_in_json(body: bytes, options: ServeOptions, signature: Signature | None = None) -> Asked:
    """Returns what a body of JSON asks.

    Args:
        body: of the request.
        options: limits.
        signature: whose inputs the rows are, where that is known; makes reading many rows quick.

    Raises:
        RequestError: 400 and 422, it is no JSON, or no object.
    """
    document = None
    if signature is not None and len(body) >= _MANY_BYTES:
        document = signature.cells.read(body, options)
    if document is None:
        document = parse_json(body)
    return Asked(document, lambda columns: read_rows(document, columns, options), options, SHAPES)


def asked_in_arrow(body: bytes, pairs: Iterable[tuple[str, str]], options: ServeOptions) -> Asked:
    """Returns what an Arrow stream and the arguments behind the path ask.

    Raises:
        RequestError: see `read_table` and `arguments_of`.
    """
    document = arguments_of(pairs)
    table = read_table(body, options)
    return Asked(document, lambda columns: rows_of_table(table, columns, options), options)


@dataclasses.dataclass(frozen=True)
class PredictQuery:
    """Rows to score.

    Attributes:
        rows: of the model's columns.
        outputs: names to answer with, in this order.
        features: answer with the generated features too.
    """

    rows: Rows
    outputs: tuple[str, ...]
    features: bool


@dataclasses.dataclass(frozen=True)
class RetrieveQuery:
    """Users to find items for: how many each, and which ids not (lists, one a row)."""

    rows: Rows
    k: int
    exclude: pa.Array | None


@dataclasses.dataclass(frozen=True)
class EmbedQuery:
    """Users or items to make vectors of, by a tower."""

    rows: Rows
    tower: str


def predict_query(asked: Asked, servable: Servable) -> PredictQuery:
    """Reads what ``/v1/predict`` is asked.

    Args:
        asked: the request.
        servable: that is asked.

    Raises:
        RequestError: 404 where the model does not predict, 413 and 422.
    """
    refuse_missing(PREDICT, servable)
    _refuse_unknown(asked, [OUTPUTS, FEATURES])
    signature = servable.signatures[PREDICT]
    outputs = _read_outputs(asked.document, [output.name for output in signature.outputs])
    features = _read_bool(asked.document, FEATURES)
    return PredictQuery(asked.rows(signature.inputs), outputs, features)


def retrieve_query(asked: Asked, servable: Servable) -> RetrieveQuery:
    """Reads what ``/v1/retrieve`` is asked; arguments and errors as of `predict_query`."""
    refuse_missing(RETRIEVE, servable)
    _refuse_unknown(asked, [K, EXCLUDE])
    k = _read_k(asked.document)
    rows = asked.rows(servable.signatures[RETRIEVE].inputs)
    if rows.num_rows * k > MAX_FOUND:
        raise RequestError(
            413,
            "too_many_items",
            f"{rows.num_rows} rows with {k} items each; a request may find {MAX_FOUND}",
            field=K,
        )
    exclude = _read_exclude(asked, servable, rows.num_rows)
    return RetrieveQuery(rows, k, exclude)


def embed_query(asked: Asked, servable: Servable) -> EmbedQuery:
    """Reads what ``/v1/embed`` is asked; arguments and errors as of `predict_query`."""
    refuse_missing(EMBED, servable)
    _refuse_unknown(asked, [TOWER])
    tower = read_tower(asked.document, servable)
    return EmbedQuery(asked.rows(servable.signatures[f"{EMBED}/{tower}"].inputs), tower)


def refuse_missing(capability: str, servable: Servable) -> None:
    """Refuses what the model cannot do.

    Raises:
        RequestError: 404.
    """
    if capability not in servable.capabilities:
        can = " and ".join(f"/v1/{name}" for name in servable.capabilities)
        raise RequestError(
            404,
            "not_served",
            f"this model ({servable.model}) does not {capability}",
            hint=f"it answers {can}",
        )


def read_tower(document: Document, servable: Servable) -> str:
    """Returns the tower that is asked, which may be left out where there is one.

    Raises:
        RequestError: 422, there is no such tower, or several and none is named.
    """
    towers = servable.towers
    tower = document.get(TOWER)
    if tower is None and len(towers) == 1:
        return towers[0]
    listed = " or ".join(f'"{name}"' for name in towers)
    if tower is None:
        raise invalid("missing_field", "the name of a tower is missing", TOWER, f"send {listed}")
    if type(tower) is not str or tower not in towers:
        raise invalid("unknown_tower", f"{kind_of(tower)}, must be {listed}", TOWER)
    return tower


def _refuse_unknown(asked: Asked, arguments: Sequence[str]) -> None:
    known = [*asked.shapes, *arguments]
    for name in asked.document:
        if name not in known:
            short = shorten(name)
            raise invalid(
                "unknown_field",
                f"there is no {short!r} in such a request{did_you_mean(short, known)}",
                short,
                f"there are {', '.join(known)}",
            )


def _read_outputs(document: Document, known: Sequence[str]) -> tuple[str, ...]:
    asked = document.get(OUTPUTS)
    if asked is None:
        return tuple(known)
    if type(asked) is not list:
        raise invalid("wrong_type", f"{kind_of(asked)}, must be a list of names", OUTPUTS)
    for i, name in enumerate(asked):
        if type(name) is not str or name not in known:
            guess = did_you_mean(shorten(name), known) if type(name) is str else ""
            raise invalid(
                "unknown_output",
                f"{kind_of(name)}, must be one of {', '.join(known)}{guess}",
                f"{OUTPUTS}[{i}]",
            )
        if name in asked[:i]:
            raise invalid("repeated_output", f"{name} is asked for twice", f"{OUTPUTS}[{i}]")
    return tuple(asked)


def _read_bool(document: Document, name: str) -> bool:
    value = document.get(name, False)
    if type(value) is not bool:
        raise invalid("wrong_type", f"{kind_of(value)}, must be true or false", name)
    return value


def _read_k(document: Document) -> int:
    k = whole(document.get(K, DEFAULT_K))
    if type(k) is not int:
        raise invalid("wrong_type", f"{kind_of(k)}, must be an integer", K)
    if not 1 <= k <= MAX_FOUND:
        raise invalid("out_of_range", f"{k}, must be from 1 to {MAX_FOUND}", K)
    return k


def _read_exclude(asked: Asked, servable: Servable, num_rows: int) -> pa.Array | None:
    lists = asked.document.get(EXCLUDE)
    if lists is None:
        return None
    if not servable.can_exclude:
        raise invalid("not_served", "a tree cannot leave items out", EXCLUDE)
    if type(lists) is not list:
        raise invalid("wrong_type", f"{kind_of(lists)}, must be a list of lists of ids", EXCLUDE)
    if len(lists) != num_rows:
        raise invalid("wrong_length", f"{len(lists)} lists for {num_rows} rows", EXCLUDE)
    column = Column(EXCLUDE, pa.list_(servable.item_id_type))
    return read_values(lists, column, lambda row: f"{EXCLUDE}[{row}]", asked.options)


def arguments_of(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Returns the arguments of a request whose body holds rows only: its query string.

    ``outputs`` is a comma list; ``features`` true or false; ``k`` a number; ``tower`` a name.

    Raises:
        RequestError: 422, an argument comes twice or is none of these.
    """
    found: dict[str, Any] = {}
    for name, text in pairs:
        if name in found:
            raise invalid(
                "repeated_key", f"the argument {shorten(name)!r} comes twice", shorten(name)
            )
        if name == OUTPUTS:
            found[name] = text.split(",")
        elif name == FEATURES and text in ("true", "false"):
            found[name] = text == "true"
        elif name == K and text.isascii() and text.isdigit() and len(text) < 10:
            found[name] = int(text)
        else:
            found[name] = text
    return found
