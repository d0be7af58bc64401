"""The description of the server for programs: OpenAPI 3.1, made for the model that is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pyarrow import types

import tzrec
from tzrec.deploy.debug_text import DEBUG_COLUMN
from tzrec.serving.arrow import ARROW_STREAM
from tzrec.serving.options import ServeOptions
from tzrec.serving.queries import DEFAULT_K, MAX_FOUND
from tzrec.serving.schema import CONTEXT_SIDE, ITEM_SIDE, USER_SIDE, Column, Output, Signature
from tzrec.serving.servable import EMBED, PREDICT, RETRIEVE, Servable
from tzrec.serving.values import FLOAT32_MOST

Json = dict[str, Any]

_JSON = "application/json"
_ERRORS = {
    "400": "The body is no JSON, or no Arrow stream.",
    "401": "The token is missing or wrong.",
    "404": "This model does not do that.",
    "406": "The client takes neither JSON nor Arrow.",
    "408": "The body did not arrive in time.",
    "413": "The body, or what it asks for, is too large.",
    "415": "The body is of another content type, or compressed.",
    "422": "A field is unknown, missing, or has a wrong value.",
    "429": "Too much waits: try again after Retry-After seconds.",
    "500": "A fault of the server.",
    "503": "No model is loaded yet, the server is going, or has too many connections.",
    "504": "There was no answer in time.",
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "field", "hint"],
            "properties": {
                "code": {"type": "string", "description": "Name of the fault, for programs."},
                "message": {"type": "string"},
                "field": {
                    "type": ["string", "null"],
                    "description": "Where in the request: rows[3].price.",
                },
                "hint": {"type": "string"},
            },
        }
    },
}


def limits(options: ServeOptions) -> Json:
    """Returns the limits of a request."""
    return {
        "max_body_bytes": options.max_body_bytes,
        "max_rows": options.max_rows,
        "max_text": options.max_text,
        "max_depth": options.max_depth,
        "max_found": MAX_FOUND,
        "request_timeout": options.request_timeout,
    }


def full_schema(servable: Servable, options: ServeOptions) -> Json:
    """Returns the answer of ``/v1/schema``."""
    return servable.schema() | {"limits": limits(options)}


def document(servable: Servable, options: ServeOptions) -> Json:
    """Returns the answer of ``/openapi.json``."""
    paths: Json = {}
    for capability in servable.capabilities:
        make = {PREDICT: _predict, RETRIEVE: _retrieve, EMBED: _embed}[capability]
        paths[f"/v1/{capability}"] = {"post": make(servable, options)}
    paths |= {
        "/v1/schema": _get("schema", "What the model reads and gives, with examples."),
        "/health": _get("health", "200 while the process lives."),
        "/ready": _get("ready", "200 while new requests should come.", "503"),
        "/metrics": _get("metrics", "Numbers for Prometheus.", kind="text/plain"),
    }
    components: Json = {"schemas": {"Error": _ERROR}}
    body: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": f"{servable.model} {servable.version}",
            "version": tzrec.__version__,
            "description": "Raw columns in, named scores out. Every column must be there; null "
            "is a missing value.",
        },
        "servers": [{"url": "."}],
        "paths": paths,
        "components": components,
    }
    if options.token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        body["security"] = [{"token": []}]
    return body


def _predict(servable: Servable, options: ServeOptions) -> Json:
    signature = servable.signatures[PREDICT]
    names = [output.name for output in signature.outputs]
    more: Json = {
        "outputs": {
            "type": ["array", "null"],
            "items": {"enum": names},
            "uniqueItems": True,
            "description": "Outputs to answer with; default all.",
        },
        "features": {
            "type": "boolean",
            "description": f"Answer with the generated features too, as {DEBUG_COLUMN}.",
        },
    }
    shapes = [*_row_shapes(signature, options, more), *_request_shape(signature, options, more)]
    values = {output.name: _of_rows(_output(output)) for output in signature.outputs}
    values[DEBUG_COLUMN] = _of_rows({"type": "string"})
    answer = _answer({"outputs": {"type": "object", "properties": values}}, ["outputs"])
    parameters = [
        _parameter("outputs", {"type": "string"}, "Comma list, for Arrow bodies."),
        _parameter("features", {"type": "boolean"}, "For Arrow bodies."),
    ]
    return _post("predict", "Scores of rows, or of the candidates of one user.", shapes, answer) | {
        "parameters": parameters
    }


def _retrieve(servable: Servable, options: ServeOptions) -> Json:
    ids = {"type": "integer" if types.is_integer(servable.item_id_type) else "string"}
    more: Json = {
        "k": {"type": "integer", "minimum": 1, "maximum": MAX_FOUND, "default": DEFAULT_K}
    }
    if servable.can_exclude:
        more["exclude"] = {
            "type": ["array", "null"],
            "items": {"type": ["array", "null"], "items": ids},
            "description": "Ids that a user must not get: one list a row.",
        }
    shapes = _row_shapes(servable.signatures[RETRIEVE], options, more)
    found = {
        "item_ids": _of_rows({"type": "array", "items": ids}),
        "scores": _of_rows({"type": "array", "items": {"type": ["number", "null"]}}),
    }
    parameters = [_parameter("k", more["k"], "For Arrow bodies.")]
    return _post("retrieve", "The best items for users.", shapes, _answer(found, list(found))) | {
        "parameters": parameters
    }


def _embed(servable: Servable, options: ServeOptions) -> Json:
    shapes = []
    for tower in servable.towers:
        signature = servable.signatures[f"{EMBED}/{tower}"]
        is_alone = len(servable.towers) == 1
        named: Json = {"enum": [tower, None]} if is_alone else {"const": tower}
        for shape in _row_shapes(signature, options, {"tower": named}):
            if not is_alone:
                shape["required"].append("tower")
            shape["examples"][0]["tower"] = tower
            shapes.append(shape)
    answer = _answer(
        {"tower": {"enum": list(servable.towers)}, "vectors": {"type": "array"}},
        ["tower", "vectors"],
    )
    parameters = [_parameter("tower", {"enum": list(servable.towers)}, "For Arrow bodies.")]
    return _post("embed", "Vectors of users or items.", shapes, answer) | {"parameters": parameters}


def _row_shapes(signature: Signature, options: ServeOptions, more: Json) -> list[Json]:
    """Returns the bodies with ``rows`` and with ``columns``."""
    rows = {"type": "array", "maxItems": options.max_rows, "items": _row(signature.inputs, options)}
    columns = _object(
        {c.name: _of_rows(_value(c, options)) for c in signature.inputs},
        [c.name for c in signature.inputs],
    )
    example = signature.example
    return [
        _object({"rows": rows} | more, ["rows"], {"rows": [example]}),
        _object(
            {"columns": columns} | more,
            ["columns"],
            {"columns": {name: [value] for name, value in example.items()}},
        ),
    ]


def _request_shape(signature: Signature, options: ServeOptions, more: Json) -> list[Json]:
    """Returns the body of one user's candidates, where the columns have sides."""
    context = [c for c in signature.inputs if c.side in (USER_SIDE, CONTEXT_SIDE)]
    items = [c for c in signature.inputs if c not in context]
    if not context or not any(c.side == ITEM_SIDE for c in items):
        return []
    example = signature.example
    return [
        _object(
            {
                "context": _row(context, options),
                "items": {
                    "type": "array",
                    "maxItems": options.max_rows,
                    "items": _row(items, options),
                },
            }
            | more,
            ["context", "items"],
            {
                "context": {c.name: example[c.name] for c in context},
                "items": [{c.name: example[c.name] for c in items}],
            },
        )
    ]


def _row(columns: Sequence[Column], options: ServeOptions) -> Json:
    return _object({c.name: _value(c, options) for c in columns}, [c.name for c in columns])


def _object(properties: Json, required: list[str], example: Json | None = None) -> Json:
    found: Json = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    return found if example is None else found | {"examples": [example]}


def _of_rows(value: Json) -> Json:
    return {"type": "array", "items": value}


def _value(column: Column, options: ServeOptions) -> Json:
    if column.type is None:
        scalar = {"type": ["integer", "number", "string", "boolean"]}
        kinds: list[Json] = [scalar, {"type": "array", "items": scalar}]
        return {"anyOf": [*kinds, {"type": "null"}] if column.nullable else kinds}
    found = _typed(column.type, options)
    return found | {"type": [found["type"], "null"]} if column.nullable else found


def _typed(kind: pa.DataType, options: ServeOptions) -> Json:
    if types.is_integer(kind):
        bound = 1 << (kind.bit_width - 1)
        return {
            "type": "integer",
            "format": str(kind),
            "minimum": -bound,
            "maximum": bound - 1,
        }
    if types.is_floating(kind):
        single = {"minimum": -FLOAT32_MOST, "maximum": FLOAT32_MOST} if kind.bit_width < 64 else {}
        return {"type": "number", "format": str(kind), **single}
    if types.is_string(kind):
        return {"type": "string", "maxLength": options.max_text}
    if types.is_map(kind):
        keys = {"propertyNames": {"pattern": "^-?[0-9]{1,18}$"}}
        more = keys if types.is_integer(kind.key_type) else {}
        return {"type": "object", "additionalProperties": _typed(kind.item_type, options), **more}
    return {"type": "array", "items": _typed(kind.value_type, options)}


def _output(output: Output) -> Json:
    kind = output.dtype
    scalar: Json = {"type": ["number", "null"]}
    if kind.startswith(("int", "uint")):
        scalar = {"type": "integer"}
    elif kind == "bool":
        scalar = {"type": "boolean"}
    for _ in output.shape:
        scalar = {"type": "array", "items": scalar}
    return scalar


def _answer(properties: Json, required: list[str]) -> Json:
    head: Json = {"version": {"type": "string"}, "num_rows": {"type": "integer"}}
    return {
        "type": "object",
        "properties": head | properties,
        "required": ["version", "num_rows", *required],
    }


def _parameter(name: str, schema: Json, text: str) -> Json:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": text}


def _post(name: str, text: str, shapes: list[Json], answer: Json) -> Json:
    stream = {"schema": {"type": "string", "format": "binary"}}
    # In the order of the shapes.
    examples = {_name_of(shape["examples"][0]): {"value": shape["examples"][0]} for shape in shapes}
    return {
        "operationId": name,
        "summary": text,
        "requestBody": {
            "required": True,
            "content": {
                _JSON: {"schema": {"anyOf": shapes}, "examples": examples},
                ARROW_STREAM: stream,
            },
        },
        "responses": {
            "200": {
                "description": "The answer.",
                "headers": {"X-Tzrec-Version": {"schema": {"type": "string"}}},
                "content": {_JSON: {"schema": answer}, ARROW_STREAM: stream},
            },
            **_errors(*_ERRORS),
        },
    }


def _name_of(example: Json) -> str:
    kind = next(iter(example))
    return f"{example['tower']} {kind}" if "tower" in example else kind


def _get(name: str, text: str, *errors: str, kind: str = _JSON) -> Json:
    schema: Json = {"type": "object"} if kind == _JSON else {"type": "string"}
    return {
        "get": {
            "operationId": name,
            "summary": text,
            "responses": {
                "200": {"description": "The answer.", "content": {kind: {"schema": schema}}},
                **_errors("401", "503", *errors),
            },
        }
    }


def _errors(*codes: str) -> Json:
    schema = {"$ref": "#/components/schemas/Error"}
    return {
        code: {"description": _ERRORS[code], "content": {_JSON: {"schema": schema}}}
        for code in codes
    }
