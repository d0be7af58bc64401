"""`FeatureSpec`: one entry of ``fg.json``, checked and with defaults filled in."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tzrec.config.feature_facts import SIDES, is_sequence_input
from tzrec.errors import ConfigError, at, did_you_mean
from tzrec.fg.checks import whole

MULTIVAL_SEP = "\x1d"
SEQUENCE_PREFIX = "sequence_"
# Sides whose inputs are columns.
READ_SIDES = ("user", "item", "context")
VALUE_TYPES = ("string", "float", "double", "int32", "int64")
BUCKETIZERS = (
    "hash_bucket_size",
    "vocab_list",
    "vocab_dict",
    "vocab_file",
    "num_buckets",
    "boundaries",
)


@dataclass(frozen=True)
class Input:
    """One input of a feature.

    Attributes:
        side: one of `SIDES`.
        name: what stands behind the colon; for ``const`` the text itself.
        source: column to read, or full name of the feature to read.
        is_sequence: the values of a row are steps.
    """

    side: str
    name: str
    source: str
    is_sequence: bool = False


@dataclass(frozen=True)
class FeatureSpec:
    r"""What feature generation is told about one feature.

    Attributes:
        name: output name; ``{sequence_name}__{own_name}`` in a grouped sequence.
        own_name: ``feature_name`` as written.
        kind: ``feature_type`` without ``sequence_``.
        options: the whole entry.
        is_sequence: the values of a row are steps.
        sequence_name: name of the grouped sequence around it.
        sequence_delim: separates steps in text.
        sequence_length: steps to keep, 0 = all.
        separator: separates several values in text, beside ``\x1d``.
        default: text of a missing value, "" = none.
        value_dim: values per cell, 0 = any number.
        stub: computed for other features, not returned.
    """

    name: str
    own_name: str
    kind: str
    options: Mapping[str, Any]
    is_sequence: bool = False
    sequence_name: str | None = None
    sequence_delim: str = ";"
    sequence_length: int = 0
    separator: str = MULTIVAL_SEP
    default: str = ""
    value_dim: int = 0
    stub: bool = False

    @property
    def bucketizer(self) -> str | None:
        """The option that makes ids, None where values stay as they are."""
        for name in BUCKETIZERS:
            value = self.options.get(name)
            if value is not None and value not in ([], {}, ""):
                # A tokenizer's vocabulary is its own affair.
                if name == "vocab_file" and self.kind == "tokenize_feature":
                    continue
                return name
        return None

    @property
    def value_type(self) -> str:
        """``value_type`` as written, or what the kind has by default."""
        default = "string" if self.kind in ("id_feature", "combo_feature") else "float"
        return str(self.options.get("value_type") or default)

    def input(self, expression: str) -> Input:
        """Takes ``side:name`` apart.

        Raises:
            ConfigError: there is no such side, or no name.
        """
        side, found, name = expression.partition(":")
        side, name = side.strip(), name if side.strip() == "const" else name.strip()
        if not found or side not in SIDES or (not name and side != "const"):
            raise ConfigError(
                f"input {expression!r} is not side:name; sides are {', '.join(SIDES)}"
                f"{did_you_mean(side, SIDES)}"
            )
        is_sequence = self.is_sequence and is_sequence_input(
            self.kind,
            side,
            name,
            in_group=self.sequence_name is not None,
            sequence_fields=self.options.get("sequence_fields") or (),
        )
        source = name
        if is_sequence and self.sequence_name:
            source = f"{self.sequence_name}__{name}"
        return Input(side, name, source, is_sequence)


def parse_fg_json(fg_json: Any) -> list[FeatureSpec]:
    """Returns the features of ``fg.json`` in order, those of grouped sequences flattened.

    Args:
        fg_json: ``{"features": [...]}``; other keys are passed over.

    Raises:
        ConfigError: an entry lacks what it must have, two have the same name.
    """
    if not isinstance(fg_json, Mapping) or not isinstance(fg_json.get("features"), list):
        raise ConfigError('fg.json must be an object with "features": [ … ]')
    specs: list[FeatureSpec] = []
    for number, entry in enumerate(fg_json["features"]):
        with at(f"features[{number}]"):
            grouped = isinstance(entry, Mapping) and "features" in entry
            specs += _of_group(entry) if grouped else [_of_entry(entry)]
    names = [spec.name for spec in specs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"two features of fg.json have the same name: {', '.join(twice)}")
    return specs


def _of_group(group: Mapping[str, Any]) -> Iterator[FeatureSpec]:
    name = group.get("sequence_name")
    if not name:
        raise ConfigError("a grouped sequence has no sequence_name")
    if not isinstance(group["features"], list):
        raise ConfigError(f'the grouped sequence {name!r} must have "features": [ … ]')
    of_group = {
        "sequence_delim": group.get("sequence_delim", ";"),
        "sequence_length": group.get("sequence_length", 0),
    }
    for number, entry in enumerate(group["features"]):
        with at(f"features[{number}]"):
            spec = _of_entry({**of_group, **entry} if isinstance(entry, Mapping) else entry)
        yield dataclasses.replace(
            spec, name=f"{name}__{spec.own_name}", is_sequence=True, sequence_name=str(name)
        )


def _of_entry(entry: Mapping[str, Any]) -> FeatureSpec:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"a feature of fg.json is {entry!r}, must be an object")
    for key in ("feature_name", "feature_type"):
        if not entry.get(key):
            raise ConfigError(f"a feature of fg.json has no {key}")
    kind, name = str(entry["feature_type"]), str(entry["feature_name"])
    is_sequence = kind.startswith(SEQUENCE_PREFIX) or bool(entry.get("is_sequence"))
    # bool_mask and custom features are sequences by these keys, without the prefix.
    is_sequence = is_sequence or "sequence_length" in entry or "sequence_delim" in entry
    kind = kind.removeprefix(SEQUENCE_PREFIX)
    with at(name):
        value_type = entry.get("value_type")
        if value_type and value_type not in VALUE_TYPES:
            raise ConfigError(
                f"value_type is {value_type!r}, must be one of {', '.join(VALUE_TYPES)}"
                f"{did_you_mean(str(value_type), VALUE_TYPES)}"
            )
        default_dim = 1 if is_sequence or kind == "raw_feature" else 0
        value_dim = entry.get("value_dim", entry.get("value_dimension", default_dim))
        return FeatureSpec(
            name=name,
            own_name=name,
            kind=kind,
            options=entry,
            is_sequence=is_sequence,
            sequence_delim=_one_byte("sequence_delim", entry.get("sequence_delim", ";")),
            sequence_length=whole("sequence_length", entry.get("sequence_length") or 0),
            separator=_one_byte("separator", entry.get("separator", MULTIVAL_SEP)),
            default=str(entry.get("default_value", "")),
            value_dim=whole("value_dim", value_dim),
            stub=bool(entry.get("stub_type", False)),
        )


def _one_byte(key: str, text: Any) -> str:
    if not isinstance(text, str) or len(text.encode()) != 1:
        raise ConfigError(
            f"{key} is {text!r}, must be one character of ASCII",
            hint='for example "|" or "\\x1d"',
        )
    return text
