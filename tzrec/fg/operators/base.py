"""`Operator`: what a kind of feature does between reading its inputs and the tail."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from tzrec.errors import ConfigError, did_you_mean
from tzrec.fg.bucketize import Bucketize
from tzrec.fg.checks import texts
from tzrec.fg.normalize import Normalizer, parse_normalizer
from tzrec.fg.ragged import Ragged
from tzrec.fg.reading import Reading
from tzrec.fg.spec import FeatureSpec, Input
from tzrec.fg.tail import Tail
from tzrec.registry import load_by_path

_PACKAGE = "tzrec.fg.operators"
# feature_type → class; a class is imported when a feature needs it.
OPERATORS = {
    "id_feature": f"{_PACKAGE}.id_feature.IdOperator",
    "raw_feature": f"{_PACKAGE}.raw_feature.RawOperator",
    "combo_feature": f"{_PACKAGE}.combo_feature.ComboOperator",
    "lookup_feature": f"{_PACKAGE}.lookup_feature.LookupOperator",
    "match_feature": f"{_PACKAGE}.match_feature.MatchOperator",
    "expr_feature": f"{_PACKAGE}.expr_feature.ExprOperator",
    "overlap_feature": f"{_PACKAGE}.overlap_feature.OverlapOperator",
    "kv_dot_product": f"{_PACKAGE}.kv_dot_product.KvDotProductOperator",
    "bool_mask_feature": f"{_PACKAGE}.bool_mask_feature.BoolMaskOperator",
    "combine_feature": f"{_PACKAGE}.combine_feature.CombineOperator",
    "tokenize_feature": f"{_PACKAGE}.tokenize_feature.TokenizeOperator",
    "text_normalizer": f"{_PACKAGE}.text_normalizer.TextNormalizerOperator",
    "regex_replace_feature": f"{_PACKAGE}.regex_replace_feature.RegexReplaceOperator",
    "custom_feature": f"{_PACKAGE}.custom_feature.CustomOperator",
}


class Operator(abc.ABC):
    """One feature: inputs → cells of values, which its tail turns into ids or numbers.

    A subclass sets `kind`, names its inputs and computes `run`; what it reads is missing
    where a cell has no values.

    Args:
        spec: the feature.
        farm: hash with FarmHash Fingerprint64.

    Attributes:
        kind: ``feature_type``.
        inputs: what the feature reads, in the order of `run`.
        tail: defaults, ids, numbers.

    Raises:
        ConfigError: an option is missing or wrong.
    """

    kind: str = ""
    # Whether the operator gives numbers (else text), and an empty default stands for 0.
    numeric: bool = False
    zero_default: bool = False
    # Whether value_dim keeps the first values of a cell.
    truncates: bool = True
    # Inputs that it takes, None = any number.
    num_inputs: int | None = None
    # Whether `run` makes one value of each value of its one input, whatever cell that is in.
    is_elementwise: bool = False

    def __init__(self, spec: FeatureSpec, *, farm: bool = False) -> None:
        self.spec = spec
        self.farm = farm
        self.inputs: tuple[Input, ...] = tuple(map(spec.input, self.expressions()))
        self._check_inputs()
        self.normalizer: Normalizer | None = parse_normalizer(
            str(spec.options.get("normalizer") or "")
        )
        self.setup()
        self.tail = self.make_tail()

    def expressions(self) -> list[str]:
        """Returns the inputs as written, ``side:name``; by default those of ``expression``."""
        value = self.option("expression")
        return [value] if isinstance(value, str) else texts("expression", value)

    def _check_inputs(self) -> None:
        count, wanted = len(self.inputs), self.num_inputs
        if wanted is not None and count != wanted:
            raise ConfigError(
                f"{self.spec.kind} {self.spec.name!r} has {count} inputs, takes {wanted}"
            )
        names = [i.name for i in self.inputs]
        for name in self.spec.options.get("sequence_fields") or ():
            if name not in names:
                raise ConfigError(
                    f"sequence_fields names {name!r}, which is no input{did_you_mean(name, names)}",
                    hint=f"inputs are {', '.join(names)}",
                )

    def setup(self) -> None:  # noqa: B027 — most kinds have options, some have none
        """Reads the options of the kind."""

    def make_tail(self) -> Tail:
        """Returns the tail; ``need_prefix`` hashes values, not the default, behind the name."""
        prefix = f"{self.spec.own_name}_" if self.spec.options.get("need_prefix") else ""
        return Tail(
            self.spec,
            numeric=self.numeric,
            bucketize=self.bucketize(prefix),
            default_bucketize=self.bucketize() if prefix else None,
            truncates=self.truncates,
            zero_default=self.zero_default,
        )

    def bucketize(self, prefix: str = "") -> Bucketize | None:
        """Returns what makes ids, None where nothing does."""
        if self.spec.bucketizer is None:
            return None
        return Bucketize(self.spec, prefix=prefix, farm=self.farm)

    def option(self, key: str) -> Any:
        """Returns an option that must be there.

        Raises:
            ConfigError: it is not.
        """
        value = self.spec.options.get(key)
        if value is None or value in ("", []):
            raise ConfigError(f"{self.spec.kind} {self.spec.name!r} has no {key}")
        return value

    def generated_tail(self) -> Tail:
        """Returns the tail for columns that hold what the operator gave before."""
        return self.tail

    def reading(self, number: int) -> Reading:
        """Returns how input ``number`` is read."""
        return Reading(
            is_sequence=self.inputs[number].is_sequence,
            delim=self.spec.sequence_delim,
            separator=self.spec.separator,
            as_numbers=self.numeric,
        )

    @cached_property
    def reads(self) -> tuple[tuple[Input, Reading], ...]:
        """The inputs, and how each is read."""
        return tuple((wanted, self.reading(i)) for i, wanted in enumerate(self.inputs))

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Columns and features that are read."""
        return tuple(wanted.source for wanted in self.inputs)

    @abc.abstractmethod
    def run(self, columns: Sequence[Ragged]) -> Ragged:
        """Returns the values of each cell.

        Args:
            columns: one per input, all with the same cells.
        """

    def finish(self, columns: Sequence[Ragged]) -> Ragged:
        """Returns what the feature gives: `run`, then the tail."""
        return self.tail.finish(self.run(columns))


def create_operator(spec: FeatureSpec, *, farm: bool = False) -> Operator:
    """Returns the operator of a feature.

    Raises:
        ConfigError: the kind is unknown, or an option is wrong.
    """
    if spec.kind not in OPERATORS:
        raise ConfigError(
            f"feature_type {spec.kind!r} is unknown{did_you_mean(spec.kind, OPERATORS)}",
            hint=f"there are {', '.join(OPERATORS)}",
        )
    operator: Operator = load_by_path(OPERATORS[spec.kind])(spec, farm=farm)
    return operator
