"""Tables and pictures of how much features matter."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from tzrec.errors import MissingDependencyError
from tzrec.storage import open_file

_INCHES_PER_BAR, _WIDTH = 0.22, 8.0
# More cannot be read, and a picture cannot be of any height.
_MOST_BARS = 200


def write_csv(path: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Writes a table with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    with open_file(path, "wb") as stream:
        stream.write(text.getvalue().encode())


def draw_bars(
    path: str,
    values: Sequence[tuple[str, float]],
    *,
    label: str,
    errors: Sequence[float] | None = None,
) -> None:
    """Draws a horizontal bar per name, the first on top, as a PNG file.

    Args:
        path: of the picture.
        values: (name, length) of each bar; of many the first 200 are drawn.
        label: what the lengths are.
        errors: half the length of each bar's whisker.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "pictures need matplotlib", hint="pip install matplotlib"
        ) from error
    if len(values) > _MOST_BARS:
        label = f"{label} (the first {_MOST_BARS} of {len(values):,})"
    values, errors = values[:_MOST_BARS], errors[:_MOST_BARS] if errors else None
    figure = Figure(figsize=(_WIDTH, 1.0 + _INCHES_PER_BAR * len(values)), layout="constrained")
    axes = figure.subplots()
    places = range(len(values))
    axes.barh(places, [value for _, value in values], xerr=errors, color="#4878a8")
    axes.set_yticks(places, [name for name, _ in values], parse_math=False)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.grid(axis="x", alpha=0.3)
    with open_file(path, "wb") as stream:
        figure.savefig(stream, format="png", dpi=120)
