"""A feature's message as the entries of ``fg.json`` read it, and what makes its ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tzrec.config.messages import is_repeated
from tzrec.config.vocab import vocab_path
from tzrec.errors import ConfigError
from tzrec.fg.spec import BUCKETIZERS

Entry = dict[str, Any]

GROWING_BUCKETS = (1 << 63) - 1
OOV_WORD = "<OOV>"
OOV_ID = 1
_ID_BUCKETIZERS = tuple(name for name in BUCKETIZERS if name != "boundaries")


@dataclass(frozen=True)
class Source:
    """A feature's message and where it stands.

    Attributes:
        kind: oneof field without ``sequence_``.
        config: its message.
        is_sequence: the values of a row are steps.
        is_grouped: it stands in a ``sequence_feature``.
        sequence_delim: separates steps; None = the message's own.
        sequence_length: steps to keep; None = the message's own.
    """

    kind: str
    config: Any
    is_sequence: bool = False
    is_grouped: bool = False
    sequence_delim: str | None = None
    sequence_length: int | None = None

    @property
    def default(self) -> str:
        """Text of a missing value; a sequence always has one."""
        known = self.config.DESCRIPTOR.fields_by_name
        text = str(self.config.default_value) if "default_value" in known else ""
        return text or ("0" if self.is_sequence else "")

    def has(self, name: str) -> bool:
        """Whether the message knows the field and it is written."""
        field = self.config.DESCRIPTOR.fields_by_name.get(name)
        if field is None:
            return False
        value = getattr(self.config, name)
        return bool(len(value)) if is_repeated(field) else bool(self.config.HasField(name))


def id_bucketizer(source: Source) -> Entry:
    """Returns what makes ids of text, with the reserved words of a vocabulary; {} for nothing."""
    config = source.config
    if source.has("zch") or source.has("dynamicemb"):
        return {"hash_bucket_size": GROWING_BUCKETS}
    kind = next((name for name in _ID_BUCKETIZERS if source.has(name)), None)
    if kind is None:
        return {}
    if kind in ("hash_bucket_size", "num_buckets"):
        return {kind: int(getattr(config, kind))}
    verbatim = source.has("default_bucketize_value")
    oov = {"default_bucketize_value": int(config.default_bucketize_value) if verbatim else OOV_ID}
    if kind == "vocab_file":
        if not verbatim:
            raise ConfigError(
                "vocab_file needs default_bucketize_value, the id of words that are not in it",
                hint="for example default_bucketize_value: 0",
            )
        return {"vocab_file": vocab_path(config.asset_dir, config.vocab_file), **oov}
    if kind == "vocab_list":
        words = list(config.vocab_list)
        return {"vocab_list": words if verbatim else [source.default, OOV_WORD, *words], **oov}
    ids = {word: int(index) for word, index in config.vocab_dict.items()}
    if not verbatim and source.default:
        ids[source.default] = 0
    return {"vocab_dict": ids, **oov}
