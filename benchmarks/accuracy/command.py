"""The command line that all data sets share."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runs import DataSet, Place, finished, run, run_command, settings_of
from table import number, test_table, trial_table

ROOT = Path(__file__).resolve().parents[2]


def main(dataset: DataSet, source: Path, doc: str, arguments: Sequence[str] | None = None) -> int:
    """Runs what is missing and prints the table.

    Args:
        dataset: what to measure.
        source: where its files are unless ``--source`` says otherwise.
        doc: text of ``--help``.
        arguments: of the command line, None for those of the process.

    Returns:
        Exit code: 0, or 1 when a run failed.
    """
    args = _parser(dataset, source, doc).parse_args(arguments)
    place = Place(_converted(dataset, args.source, args.dir), args.dir.resolve(), args.threads)
    names = list(dataset.models) if args.models == "all" else args.models.split(",")
    unknown = [name for name in names if name not in dataset.models]
    if unknown:
        sys.exit(f"no model {', '.join(unknown)}; there are {', '.join(dataset.models)}")
    if args.tries:
        return _trials(dataset, names, args, place)
    failed = 0
    # Seed by seed, so that a table with every model stands early.
    for seed, name in [] if args.table else itertools.product(range(1, args.seeds + 1), names):
        failed += _attempt(dataset, name, seed, place) is None
    found = _finished(dataset, place)
    text = test_table(dataset, found)
    (place.runs / dataset.folder).mkdir(parents=True, exist_ok=True)
    (place.runs / dataset.folder / "table.md").write_text(text)
    print(
        f"\ntest part, checkpoint with the best valid {dataset.metrics[dataset.select]}:\n\n{text}"
    )
    return 1 if failed else 0


def _parser(dataset: DataSet, source: Path, doc: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="all", help=f"all, or of {','.join(dataset.models)}")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 1 on (default 3)")
    parser.add_argument("--source", type=Path, default=source, help=f"default {source}")
    parser.add_argument("--dir", type=Path, default=ROOT / "experiments" / "accuracy")
    parser.add_argument("--threads", type=int, default=1, help="of a run (default 1)")
    parser.add_argument("--table", action="store_true", help="run nothing, print the table")
    parser.add_argument(
        "--try",
        dest="tries",
        action="append",
        default=[],
        metavar="PATH=V1,V2",
        help="compare settings on the valid part instead; repeat it for all combinations",
    )
    return parser


def _converted(dataset: DataSet, source: Path, directory: Path) -> Path:
    """Returns the directory of the converted data, which is made where it is missing."""
    data = directory.resolve() / dataset.folder / "data"
    if not data.exists():
        data.parent.mkdir(parents=True, exist_ok=True)
        log, unfinished = data.parent / "convert.txt", data.with_name("data.part")
        run_command(["data", "convert", dataset.name, str(source), str(unfinished)], log, 1)
        if dataset.prepare is not None:
            dataset.prepare(unfinished)
        unfinished.rename(data)
    return data


def _attempt(
    dataset: DataSet, name: str, seed: int, place: Place, edits: Sequence[str] = ()
) -> dict[str, Any] | None:
    """Returns the result of a run, or None after saying why there is none."""
    what = " ".join([name, *edits, f"seed {seed}"])
    try:
        result = run(dataset, name, seed, place, edits=edits)
    except RuntimeError as error:
        print(f"{what}: failed: {error}", flush=True)
        return None
    values = [
        f"{part} {number(result[part][dataset.select])}"
        for part in ("valid", "test")[: 2 - bool(edits)]
    ]
    seconds = f"{result['evaluations']} evaluations, {result['seconds']:.0f} s"
    print(f"{what}: {', '.join(values)} ({seconds})", flush=True)
    return result


def _trials(dataset: DataSet, names: Sequence[str], args: argparse.Namespace, place: Place) -> int:
    """Compares all combinations of the tried settings on the valid part."""
    choices = []
    for text in args.tries:
        path, _, values = text.partition("=")
        choices.append([f"{path}={value}" for value in values.split(",")])
    failed = 0
    for name in names:
        trials: dict[str, list[dict[str, Any]]] = {}
        for edits in itertools.product(*choices):
            found = [
                _attempt(dataset, name, seed, place, edits) for seed in range(1, args.seeds + 1)
            ]
            failed += found.count(None)
            trials[" ".join(edits)] = [result for result in found if result is not None]
        kept = {text: results for text, results in trials.items() if results}
        print(f"\n{dataset.models[name].title}:\n\n{trial_table(dataset, kept)}", flush=True)
    return 1 if failed else 0


def _finished(dataset: DataSet, place: Place) -> dict[str, dict[int, dict[str, Any]]]:
    """Returns model → seed → result of all runs that ended with the settings of now."""
    results: dict[str, dict[int, dict[str, Any]]] = {}
    for name in dataset.models:
        settings = settings_of(dataset, name, place.data)
        for path in sorted((place.runs / dataset.folder / name).glob("seed*/result.json")):
            result = finished(path.parent, settings)
            if result is not None:
                results.setdefault(name, {})[int(path.parent.name.removeprefix("seed"))] = result
    return results
