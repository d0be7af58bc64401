"""The parity gate: an export is published only when it scores like the trained model."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tzrec.errors import ExportError

logger = logging.getLogger("tzrec")

GOLDEN_CASE = "golden batch"

Forward = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]


@dataclasses.dataclass(frozen=True)
class Difference:
    """How one output of the export differs from the model's.

    Attributes:
        output: name.
        max_abs: largest absolute difference; infinite when the two cannot be compared.
        note: where it is, or why they cannot be compared.
        size: largest absolute value that was expected; 0 for whole numbers.
    """

    output: str
    max_abs: float
    note: str
    size: float = 0.0


def compare(
    expected: Mapping[str, Tensor], actual: Mapping[str, Tensor], *, relative: float = 0.0
) -> list[Difference]:
    """Compares outputs by name.

    Args:
        expected: outputs of the trained model.
        actual: outputs of the export.
        relative: part of each expected value's size that a difference is reduced by.

    Returns:
        One entry per name of either side, in name order.
    """
    differences = []
    for name in sorted(expected.keys() | actual.keys()):
        if name not in actual:
            differences.append(Difference(name, float("inf"), "missing in the export"))
        elif name not in expected:
            differences.append(Difference(name, float("inf"), "only in the export"))
        else:
            differences.append(_compare_one(name, expected[name], actual[name], relative))
    return differences


def _compare_one(name: str, expected: Tensor, actual: Tensor, relative: float) -> Difference:
    if expected.shape != actual.shape:
        note = f"shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
        return Difference(name, float("inf"), note)
    if expected.dtype != actual.dtype:
        note = f"type {actual.dtype}, expected {expected.dtype}"
        return Difference(name, float("inf"), note)
    if expected.numel() == 0:
        return Difference(name, 0.0, "empty")
    left, right = expected.detach().double().flatten(), actual.detach().double().flatten()
    same = (left == right) | (left.isnan() & right.isnan())
    gap = torch.where(same, 0.0, (left - right).abs() - relative * left.abs()).clamp_min(0.0)
    gap = gap.nan_to_num(nan=float("inf"), posinf=float("inf"))
    place = int(gap.argmax())
    largest = float(gap[place])
    if largest == 0.0:
        return Difference(name, 0.0, "equal")
    index = [int(i) for i in torch.unravel_index(torch.tensor(place), expected.shape)]
    note = f"at {index}: {float(right[place]):.9g}, expected {float(left[place]):.9g}"
    size = 0.0
    if expected.is_floating_point():
        size = float(left.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).abs().amax())
    return Difference(name, largest, note, size)


def difference_table(differences: list[Difference]) -> str:
    """Returns the differences as aligned lines, one an output."""
    width = max([len("output"), *(len(d.output) for d in differences)])
    lines = [f"{'output':<{width}}  max |difference|  where"]
    lines += [f"{d.output:<{width}}  {d.max_abs:>16.3e}  {d.note}" for d in differences]
    return "\n".join(lines)


def check_equal(
    expected: Mapping[str, Tensor],
    actual: Mapping[str, Tensor],
    *,
    tolerance: float,
    relative: float = 0.0,
    scaled: bool = False,
    case: str = GOLDEN_CASE,
) -> dict[str, float]:
    """Refuses outputs that differ.

    Args:
        expected: outputs of the trained model.
        actual: outputs of the export.
        tolerance: largest absolute difference.
        relative: part of each expected value's size that is allowed beside it.
        scaled: the tolerance is for outputs up to 1 and grows with the largest expected value:
            for sums in another order, which differ by a part of what is summed.
        case: what was scored, for the message.

    Returns:
        Output → largest absolute difference.

    Raises:
        ExportError: an output differs by more than that, in shape, type or presence; the message
            holds the table of differences.
    """
    differences = compare(expected, actual)
    if any(
        d.max_abs > tolerance * (max(1.0, d.size) if scaled else 1.0)
        for d in compare(expected, actual, relative=relative)
    ):
        raise ExportError(
            f"the export does not score like the trained model ({case}, tolerance "
            f"{tolerance:g}); nothing was published\n{difference_table(differences)}"
        )
    return {d.output: d.max_abs for d in differences}


def check_finite(outputs: Mapping[str, Tensor]) -> None:
    """Refuses a model whose scores are not numbers.

    Raises:
        ExportError: an output holds NaN.
    """
    for name, value in outputs.items():
        broken = int(value.isnan().sum()) if value.is_floating_point() else 0
        if broken:
            raise ExportError(
                f"output {name!r} of the trained model has {broken} NaN among "
                f"{value.numel()} values of the golden batch; nothing was published",
                hint="the weights of this checkpoint are broken: export an earlier one",
            )


def check_parity(
    eager: Forward,
    exported: Forward,
    cases: Mapping[str, dict[str, Tensor]],
    *,
    expected: Mapping[str, Tensor],
    tolerance: float,
    relative: float = 0.0,
    scaled: bool = False,
) -> dict[str, Any]:
    """Runs model and export on the golden batch and on others that are made of it.

    Args:
        eager: the trained model.
        exported: the artefact, loaded from disk.
        cases: name → parse keys → tensors, see `parity_cases`.
        expected: the model's scores of the golden batch, from before it was compiled.
        tolerance: largest absolute difference.
        relative: part of each score's size that is allowed beside it.
        scaled: the tolerance grows with the largest score of an output, see `check_equal`.

    Returns:
        What goes into the manifest: tolerances, and the largest differences of each case.

    Raises:
        ExportError: they differ, or only the export fails.
    """
    limits: dict[str, Any] = {"tolerance": tolerance, "relative": relative, "scaled": scaled}
    report: dict[str, Any] = {**limits, "cases": {}}
    for case, data in cases.items():
        try:
            wanted = expected if case == GOLDEN_CASE else eager(data)
        except Exception as error:
            first = (str(error).splitlines() or [""])[0]
            logger.warning("export: the model itself cannot score %s: %s", case, first)
            report["cases"][case] = f"the model itself fails: {first}"
            continue
        found: dict[str, float] = {}
        # The first run profiles the TorchScript graph, the second one is optimised by it.
        for _ in range(2):
            try:
                actual = exported(data)
            except Exception as error:
                raise ExportError(
                    f"the export fails where the model does not ({case}); nothing was published: "
                    f"{error}"
                ) from error
            run = check_equal(wanted, actual, **limits, case=case)
            found = {name: max(gap, found.get(name, 0.0)) for name, gap in run.items()}
        report["cases"][case] = found
    return report


def parity_cases(golden: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Returns the batches that the gate runs: the golden one, its first row, rows without ids.

    The latter two catch what a trace may have frozen: the number of rows, the lengths.
    """
    return {
        GOLDEN_CASE: golden,
        "one row": take_rows(golden, 1),
        "two rows without ids": empty_rows(golden, 2),
    }


def distances(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> dict[str, dict[str, float]]:
    """Returns output → ``largest`` and ``mean`` absolute difference; equal shapes."""
    found = {}
    for name, value in sorted(before.items()):
        gap = (value.detach().double() - after[name].detach().double()).abs().flatten()
        largest = float(gap.max()) if gap.numel() else 0.0
        found[name] = {"largest": largest, "mean": float(gap.mean()) if gap.numel() else 0.0}
    return found


def num_rows(data: dict[str, Tensor]) -> int:
    """Returns the rows of a batch in parse keys."""
    for key, value in data.items():
        name, _, part = key.rpartition(".")
        if part == "lengths" or (part == "values" and f"{name}.lengths" not in data):
            return int(value.shape[0])
    return 0


def take_rows(data: dict[str, Tensor], num_rows: int) -> dict[str, Tensor]:
    """Returns the first rows of a batch in parse keys.

    Args:
        data: parse keys → tensors. ``values`` of a name that has ``lengths`` are jagged; with
            ``key_lengths`` (ids per step) they are jagged twice.
        num_rows: rows to keep.
    """
    kept: dict[str, Tensor] = {}
    for key, value in data.items():
        name, _, part = key.rpartition(".")
        lengths = data.get(f"{name}.lengths")
        if lengths is None or part not in ("values", "weights", "key_lengths"):
            kept[key] = value[:num_rows] if value.dim() else value
            continue
        count = int(lengths[:num_rows].sum())
        key_lengths = data.get(f"{name}.key_lengths")
        if key_lengths is not None and part != "key_lengths":
            count = int(key_lengths[:count].sum())
        kept[key] = value[:count]
    return kept


def empty_rows(data: dict[str, Tensor], num_rows: int) -> dict[str, Tensor]:
    """Returns the first rows of a batch with all jagged values taken out."""
    rows = take_rows(data, num_rows)
    for key in rows:
        name, _, part = key.rpartition(".")
        if part == "lengths":
            rows[key] = torch.zeros_like(rows[key])
        elif part in ("values", "weights", "key_lengths") and f"{name}.lengths" in rows:
            rows[key] = rows[key][:0]
    return rows
