"""The raw columns that features are generated from (``FG_NORMAL``, ``FG_DAG``)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tzrec.demo.shape.columns import MOST_STEPS, Column, Entries, Links, Nested
from tzrec.demo.shape.domains import SOME, Domain, Ids, Normal, Positive, Words, settle
from tzrec.demo.shape.encoded import has_several
from tzrec.demo.shape.outputs import domain_of, numbers_of
from tzrec.demo.shape.texts import WORDS, words_of_tokenizer
from tzrec.fg.spec import MULTIVAL_SEP, Input

if TYPE_CHECKING:
    from tzrec.features.feature import BaseFeature
    from tzrec.fg.operators.base import Operator

_MISSING = 0.02
_COLUMNS = ("user", "item", "context")
# Functions of vectors, each argument a variable.
_OF_VECTORS = re.compile(
    r"\b(?:len|l2_norm|squared_norm|dot|euclid_dist|corr|std_dev|pop_std_dev|variance|"
    r"pop_variance|reduce_\w+)\s*\(([^()]*)\)"
)
_VECTOR = 4
# Kinds whose values are those of their first input.
_PASS_ON = ("id_feature", "raw_feature", "text_normalizer", "regex_replace_feature")


def raw_columns(features: Sequence[BaseFeature]) -> list[Column]:
    """Returns the columns that features read, with values that each reader can take.

    Args:
        features: of FG_NORMAL or FG_DAG.
    """
    from tzrec.features.generation import create_handler

    several = {feature.name for feature in features if has_several(feature)}
    together = any(feature.fg_mode.name == "FG_DAG" for feature in features)
    handlers = [create_handler(features)] if together else [f.handler for f in features]
    operators = {o.spec.name: o for handler in handlers for o in handler.operators}
    readers = _Readers(operators, several)
    for operator in operators.values():
        readers.add(operator)
    return readers.columns()


@dataclasses.dataclass
class _Reads:
    """What the readers of one column want."""

    claims: list[Domain] = dataclasses.field(default_factory=list)
    separators: list[str] = dataclasses.field(default_factory=list)
    delim: str = ";"
    pair: str = ":"
    most_steps: int = MOST_STEPS
    many: bool = False
    dim: int = 0
    is_vector: bool = False
    is_sequence: bool = False
    is_text: bool = False
    weighted: bool = False
    may_weigh: bool = False
    is_map: bool = False
    only_as_map: bool = True
    masks: str | None = None
    nested: Nested | None = None
    keys: list[str] = dataclasses.field(default_factory=list)
    values: list[Domain] = dataclasses.field(default_factory=list)
    value_dim: int = 1
    between: str = ","


class _Readers:
    """Collects what the operators want of their columns.

    Args:
        operators: feature → what generates it.
        several: features whose column holds any number of values.
    """

    def __init__(self, operators: Mapping[str, Operator], several: set[str]) -> None:
        self._operators = operators
        self._several = several
        self._reads: dict[str, _Reads] = {}
        self._tokens = Links()
        self._steps = Links()

    def add(self, operator: Operator) -> None:
        """Notes what an operator wants of its inputs."""
        steps = []
        for wanted, how in operator.reads:
            if wanted.side not in _COLUMNS:
                continue
            reads = self._reads.setdefault(wanted.source, _Reads())
            reads.only_as_map &= how.as_map
            if how.separator and how.separator != MULTIVAL_SEP:
                reads.separators.append(how.separator)
            if wanted.is_sequence:
                reads.is_sequence, reads.delim = True, how.delim
                reads.most_steps = min(operator.spec.sequence_length or MOST_STEPS, MOST_STEPS)
                group = operator.spec.sequence_name
                grouped = group and wanted.source.startswith(f"{group}__")
                steps += [f"{group}__" if grouped else wanted.source, wanted.source]
        self._steps.join(*steps)
        _KINDS.get(operator.kind, _tokens)(self, operator)

    def several(self, operator: Operator) -> bool:
        """Whether a feature's column holds any number of values."""
        return operator.spec.name in self._several

    def root(self, wanted: Input) -> tuple[Input, Operator | None]:
        """Returns the column that an input's values come from, or the last feature on the way.

        Returns:
            An input, and the operator that makes other values of it; None where none does.
        """
        operator = self._operators.get(wanted.source) if wanted.side == "feature" else None
        if operator is None:
            return wanted, None
        if operator.kind in _PASS_ON and operator.spec.bucketizer is None:
            return self.root(operator.inputs[0])
        return operator.inputs[0], operator

    def reads(self, wanted: Input) -> _Reads | None:
        """Returns the notes on the column of an input; None where values come about later."""
        column, operator = self.root(wanted)
        if operator is not None or column.side not in _COLUMNS:
            return None
        return self._reads.setdefault(column.source, _Reads())

    def source(self, wanted: Input | None) -> list[str]:
        """Returns the column of an input, if it has one."""
        if wanted is None or self.reads(wanted) is None:
            return []
        return [self.root(wanted)[0].source]

    def claim(self, wanted: Input, domain: Domain | None, **notes: Any) -> None:
        """Notes what the values of an input must be.

        Args:
            wanted: the input.
            domain: its values; None where anything will do.
            notes: further attributes of `_Reads`.
        """
        column, operator = self.root(wanted)
        if operator is not None:
            self._claim_entries(column, operator, domain, **notes)
            return
        reads = self.reads(wanted)
        if reads is None:
            return
        if domain is not None:
            reads.claims.append(domain)
        reads.dim = max(reads.dim, notes.pop("dim", 0))
        for name, value in notes.items():
            if value:
                setattr(reads, name, value)

    def _claim_entries(
        self, table: Input, operator: Operator, domain: Domain | None, **notes: Any
    ) -> None:
        """Notes what the entries of a map must be whose values another feature reads."""
        if operator.kind != "lookup_feature" or operator.spec.bucketizer is not None:
            return
        reads = self.reads(table)
        if reads is not None:
            reads.values += [domain] if domain is not None else []
            reads.value_dim = max(reads.value_dim, notes.get("dim", 1))
            reads.between = notes.get("between", reads.between)

    def link(self, *inputs: Input) -> None:
        """Notes that columns hold the same tokens."""
        self._tokens.join(*(name for wanted in inputs for name in self.source(wanted)))

    def columns(self) -> list[Column]:
        """Returns the columns."""
        return [self._column(name, reads) for name, reads in self._reads.items()]

    def _domain(self, name: str) -> Domain:
        fellows = self._tokens.fellows(name, iter(self._reads))
        return settle([claim for other in fellows for claim in self._reads[other].claims])

    def _column(self, name: str, reads: _Reads) -> Column:
        entries, nested = None, reads.nested
        if reads.is_map:
            values = settle(reads.values) if reads.values else Positive()
            entries = Entries(tuple(reads.keys), values, reads.value_dim, reads.between)
        if nested is not None and nested.secondary:
            nested = dataclasses.replace(nested, skeys=self._domain(nested.secondary[0]))
        weighted = reads.weighted or (reads.may_weigh and reads.only_as_map)
        is_map = weighted or reads.is_map
        own = [] if is_map else list(dict.fromkeys(reads.separators))
        separator = own[0] if len(own) == 1 else MULTIVAL_SEP
        if reads.is_text and not own:
            separator = " "
        # Of a sequence the steps are the vector.
        dim = reads.dim or (_VECTOR if reads.is_vector and not reads.is_sequence else 1)
        return Column(
            name,
            self._domain(reads.masks or name),
            many=(reads.many or reads.is_text) and not reads.dim,
            dim=dim,
            steps=self._steps.find(name) if reads.is_sequence else None,
            most_steps=reads.most_steps,
            weighted=weighted,
            masks=reads.masks,
            entries=entries,
            nested=nested,
            separator=separator,
            delim=reads.delim,
            pair=reads.pair,
            as_text=reads.is_text or bool(own) or (is_map and not reads.only_as_map),
            missing=_MISSING,
        )


def _tokens(readers: _Readers, operator: Operator) -> None:
    """Of kinds that make ids of their values, and of those that nothing is known about."""
    domain: Domain | None = domain_of(operator.spec, numeric=operator.numeric)
    if len(operator.inputs) > 1 or operator.spec.bucketizer is None:
        domain = None  # their products are what is bucketised
    if operator.spec.options.get("weighted"):
        readers.claim(operator.inputs[0], domain, many=True, weighted=True)
        return
    for wanted in operator.inputs:
        readers.claim(wanted, domain, many=readers.several(operator) and len(operator.inputs) == 1)


def _numbers(readers: _Readers, operator: Operator) -> None:
    dim, domain = max(operator.spec.value_dim, 1), domain_of(operator.spec, numeric=True)
    between = operator.spec.separator
    readers.claim(operator.inputs[0], domain, dim=dim, between=between)


def _expression(readers: _Readers, operator: Operator) -> None:
    text = str(operator.spec.options.get("expression"))
    found = ",".join(_OF_VECTORS.findall(text))
    vectors = {name.strip() for name in found.split(",")}
    for wanted in operator.inputs:
        if wanted.name in vectors:
            readers.claim(wanted, Positive(), is_vector=True)
        else:
            readers.claim(wanted, Positive(), dim=1)


def _lookup(readers: _Readers, operator: Operator) -> None:
    table, key = operator.inputs
    readers.claim(key, None)
    readers.link(table, key)
    reads = readers.reads(table)
    if reads is None:
        return
    reads.is_map = True
    reads.keys += readers.source(key)
    domain = domain_of(operator.spec, numeric=operator.numeric)
    if operator.spec.bucketizer is not None or operator.numeric:
        reads.values.append(domain)


def _match(readers: _Readers, operator: Operator) -> None:
    table, *rest = operator.inputs
    options = operator.spec.options
    pkey = rest.pop(0) if options["category"] != "ALL" else None
    skey = rest.pop(0) if options["item"] != "ALL" else None
    reads = readers.reads(table)
    if pkey is not None:
        readers.link(table, pkey)
    if reads is None:
        return
    before = reads.nested or Nested(Ids(SOME), (), (), Positive())
    domain = domain_of(operator.spec, numeric=operator.numeric)
    varies = operator.spec.bucketizer is not None or not operator.numeric
    reads.nested = dataclasses.replace(
        before,
        primary=(*before.primary, *readers.source(pkey)),
        secondary=(*before.secondary, *readers.source(skey)),
        values=domain,
        alone=before.alone or (None in (pkey, skey) and not varies),
    )


def _terms(readers: _Readers, operator: Operator) -> None:
    for wanted in operator.inputs:
        readers.claim(wanted, Words(WORDS, others=False), many=True)
    readers.link(*operator.inputs)


def _vectors(readers: _Readers, operator: Operator) -> None:
    pair = str(operator.spec.options.get("kv_delimiter", ":"))
    for wanted in operator.inputs:
        readers.claim(wanted, Words(WORDS, others=False), many=True, may_weigh=True, pair=pair)
    readers.link(*operator.inputs)


def _mask(readers: _Readers, operator: Operator) -> None:
    values, mask = operator.inputs
    readers.claim(values, domain_of(operator.spec, numeric=False), many=True)
    reads = readers.reads(mask)
    if reads is not None:
        reads.masks = next(iter(readers.source(values)), None)


def _combined(readers: _Readers, operator: Operator) -> None:
    """Values whose sum stays in the range that its bucketizer knows."""
    known = operator.spec.options.get("value_map")
    domain: Domain
    if known:
        domain = Words(tuple(map(str, known)))
    elif operator.spec.bucketizer == "num_buckets":
        size = int(operator.spec.options["num_buckets"])
        sums = (operator.spec.options.get("combiner") or "sum") == "sum"
        domain = Ids(max(size // 2, 1) if sums else size, strict=True)
    elif operator.spec.bucketizer == "boundaries":
        domain = domain_of(operator.spec, numeric=True)
    else:
        domain = numbers_of(operator.spec)
    readers.claim(operator.inputs[0], domain, many=True)


def _text(readers: _Readers, operator: Operator) -> None:
    options = operator.spec.options
    words = words_of_tokenizer(
        str(options.get("vocab_file")), str(options.get("tokenizer_type") or "bpe")
    )
    readers.claim(operator.inputs[0], Words(words, others=False), is_text=True)


def _some_text(readers: _Readers, operator: Operator) -> None:
    readers.claim(operator.inputs[0], None, is_text=True)


def _custom(readers: _Readers, operator: Operator) -> None:
    name = operator.spec.options.get("operator_name")
    if name == "SeqExpr":
        for wanted in operator.inputs:
            readers.claim(wanted, Normal(0.0, 30.0), dim=1)
    elif name in ("EditDistance", "RegexReplace"):
        for wanted in operator.inputs:
            readers.claim(wanted, Words(WORDS, others=False), is_text=True)
        readers.link(*operator.inputs)
    else:
        # A user's function: whole numbers are numbers and text.
        for wanted in operator.inputs:
            readers.claim(wanted, Ids(SOME, strict=True), dim=1)


_KINDS: dict[str, Callable[[_Readers, Any], None]] = {
    "raw_feature": _numbers,
    "expr_feature": _expression,
    "lookup_feature": _lookup,
    "match_feature": _match,
    "overlap_feature": _terms,
    "kv_dot_product": _vectors,
    "bool_mask_feature": _mask,
    "combine_feature": _combined,
    "tokenize_feature": _text,
    "text_normalizer": _some_text,
    "custom_feature": _custom,
}
