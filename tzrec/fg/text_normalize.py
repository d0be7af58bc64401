"""`TextNormalize`: letters, widths, scripts and symbols of a text made uniform."""

from __future__ import annotations

import unicodedata

from tzrec.errors import ConfigError, MissingDependencyError

LOWER_TO_UPPER = 2
UPPER_TO_LOWER = 4
FULL_TO_HALF_WIDTH = 8
TRADITIONAL_TO_SIMPLIFIED = 16
FILTER = 32
SPLIT_CHARACTERS = 512

_ALL = (
    LOWER_TO_UPPER
    | UPPER_TO_LOWER
    | FULL_TO_HALF_WIDTH
    | TRADITIONAL_TO_SIMPLIFIED
    | FILTER
    | SPLIT_CHARACTERS
)
# U+FF01 … U+FF5E are ! … ~ in full width, U+3000 is the blank.
_HALF_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}
_CJK = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))


class TextNormalize:
    """Applies the options of ``parameter``, in the order of the table.

    ===  ======================================================================
    8    full-width letters, digits and symbols to half width
    16   traditional Chinese characters to simplified ones (package zhconv)
    2    small letters to capitals
    4    capitals to small letters
    32   stop characters out: those of a file, or all punctuation and symbols
    512  Chinese characters stand alone between blanks
    ===  ======================================================================

    Args:
        parameter: sum of the options.
        remove_space: take out white space, at the end.
        max_length: texts with more characters are left as they are; None or 0 = no limit.
        stop_char_file: characters to take out, any number per line.

    Raises:
        ConfigError: the options contradict each other, or the file cannot be read.
        MissingDependencyError: zhconv is not installed.
    """

    def __init__(
        self,
        parameter: int,
        *,
        remove_space: bool = False,
        max_length: int | None = None,
        stop_char_file: str = "",
    ) -> None:
        if parameter & ~_ALL:
            raise ConfigError(f"text_normalizer: parameter {parameter} has unknown bits")
        if parameter & LOWER_TO_UPPER and parameter & UPPER_TO_LOWER:
            raise ConfigError("text_normalizer: LOWER2UPPER and UPPER2LOWER exclude each other")
        self._parameter = parameter
        self._remove_space = remove_space
        self._max_length = max_length or None
        self._stop = _read_stop_characters(stop_char_file) if stop_char_file else None
        self._convert = _converter() if parameter & TRADITIONAL_TO_SIMPLIFIED else None

    def __call__(self, texts: list[str]) -> list[str]:
        """Returns the texts normalised."""
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> str:
        if self._max_length is not None and len(text) > self._max_length:
            return text
        parameter = self._parameter
        if parameter & FULL_TO_HALF_WIDTH:
            text = text.translate(_HALF_WIDTH)
        if self._convert is not None:
            text = self._convert(text, "zh-hans")
        if parameter & LOWER_TO_UPPER:
            text = text.upper()
        if parameter & UPPER_TO_LOWER:
            text = text.lower()
        if parameter & FILTER:
            text = "".join(char for char in text if not self._is_stop(char))
        if parameter & SPLIT_CHARACTERS:
            spaced = "".join(f" {char} " if _is_cjk(char) else char for char in text)
            text = " ".join(spaced.split())
        if self._remove_space:
            text = "".join(text.split())
        return text

    def _is_stop(self, char: str) -> bool:
        if self._stop is not None:
            return char in self._stop
        return unicodedata.category(char)[0] in "PS"


def _is_cjk(char: str) -> bool:
    return any(first <= ord(char) <= last for first, last in _CJK)


def _read_stop_characters(path: str) -> frozenset[str]:
    from tzrec.storage import open_file

    try:
        with open_file(path, "rb") as stream:
            return frozenset(stream.read().decode("utf-8")) - frozenset("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"stop_char_file {path} cannot be read: {error}") from error


def _converter():  # type: ignore[no-untyped-def]
    try:
        import zhconv  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingDependencyError(
            "text_normalizer with CHT2CHS needs the package zhconv", hint="pip install zhconv"
        ) from error
    return zhconv.convert
