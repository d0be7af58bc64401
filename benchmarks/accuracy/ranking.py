"""Runs of a retrieval model: `tzrec train`, vectors of both towers, full ranking.

A converted data set has two parts, ``choose`` and ``final``. Each holds ``train.parquet`` (rows to
learn), ``users.parquet`` and ``items.parquet`` (rows to embed), ``seen.parquet`` and
``relevant.parquet`` (pairs). Settings and passes are chosen on the first, the second is looked at
once. A run is a directory below ``--dir`` with a ``result.json``, as in `runs`.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import itertools
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from runs import HERE, Command, Model, finished, locked, run_command

from tzrec.retrieval.evaluation import evaluate_ranking
from tzrec.retrieval.row_lists import RowLists
from tzrec.retrieval.towers import load_tower

ROOT = Path(__file__).resolve().parents[2]
Ids = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Users and their items, a pair each."""

    users: Ids
    items: Ids

    def take(self, rows: NDArray[Any]) -> Pairs:
        """Returns some of them."""
        return Pairs(self.users[rows], self.items[rows])


@dataclasses.dataclass(frozen=True)
class RankingSet:
    """A data set with the models that are measured on it.

    Attributes:
        folder: of the configs, below ``models``, and of the runs.
        metrics: metric of `evaluate_ranking` → its title, the one that chooses first.
        models: name of the config file without ending → the row of the table.
        published: title → values in the order of ``metrics``.
        convert: writes both parts: (directory of the source, directory of the data).
        retrain: ``final`` has rows of its own to learn. Otherwise the model of ``choose`` is
            ranked there, by the checkpoint that is best on ``choose``.
    """

    folder: str
    metrics: Mapping[str, str]
    models: Mapping[str, Model]
    published: Mapping[str, Sequence[str]]
    convert: Callable[[Path, Path], None]
    retrain: bool

    @property
    def select(self) -> str:
        """The metric that chooses."""
        return next(iter(self.metrics))


def write_part(
    part: Path,
    train: Mapping[str, Any],
    users: Mapping[str, Any],
    items: Ids,
    *,
    seen: Pairs,
    relevant: Pairs,
) -> None:
    """Writes the tables of a part; columns of ``train`` and ``users`` as given."""
    part.mkdir(parents=True)
    # A match model needs a label column and does not read it.
    rows = pa.table({**train, "label": np.ones(len(train["user_id"]), np.int64)})
    pq.write_table(rows, part / "train.parquet")
    pq.write_table(pa.table(dict(users)), part / "users.parquet")
    pq.write_table(pa.table({"item_id": items}), part / "items.parquet")
    for name, pairs in {"seen": seen, "relevant": relevant}.items():
        table = pa.table({"user_id": pairs.users, "item_id": pairs.items})
        pq.write_table(table, part / f"{name}.parquet")


def read_part(path: Path) -> Pairs:
    """Reads the pairs of a table."""
    table = pq.read_table(path)
    return Pairs(table["user_id"].to_numpy(), table["item_id"].to_numpy())


def config_text(dataset: RankingSet, name: str) -> str:
    """Returns the config of a model: the protocol and the model."""
    folder = HERE / "models" / dataset.folder
    return "".join((folder / f"{part}.config").read_text() for part in ("protocol", name))


def settings_of(dataset: RankingSet, name: str, edits: Sequence[str] = ()) -> str:
    """Returns a fingerprint of all that decides a run besides its seed and the code."""
    whole = "\n".join([config_text(dataset, name), *dataset.models[name].edits, *edits])
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def rank(model_dir: Path, checkpoint: Path, part: Path, metrics: Sequence[str]) -> dict[str, float]:
    """Embeds users and items of a part and ranks all items that a user has not seen."""
    ids, vectors = {}, {}
    for tower in ("user", "item"):
        loaded = load_tower(str(model_dir), tower, checkpoint_path=str(checkpoint))
        table = str(part / f"{tower}s.parquet")
        found = list(loaded.vectors(table, [f"{tower}_id"], batch_size=1024))
        ids[tower] = np.concatenate([rows.column(0).to_numpy() for _, rows in found])
        vectors[tower] = np.concatenate([some for some, _ in found])

    def lists(name: str) -> RowLists:
        pairs = read_part(part / f"{name}.parquet")
        users, found = places(ids["user"], pairs.users), places(ids["item"], pairs.items)
        return RowLists.from_pairs(users, found, len(ids["user"]))

    ks = sorted({int(metric.partition("@")[2]) for metric in metrics})
    result = evaluate_ranking(
        vectors["user"], vectors["item"], lists("relevant"), seen=lists("seen"), ks=ks
    )
    return {metric: result.metrics[metric] for metric in metrics}


def places(ids: Ids, wanted: Ids) -> Ids:
    """Returns the rows of ``wanted`` in ``ids``, in which all of them are."""
    order = np.argsort(ids)
    found: Ids = order[np.searchsorted(ids, wanted, sorter=order)]
    assert (ids[found] == wanted).all()
    return found


def run(
    dataset: RankingSet,
    name: str,
    seed: int,
    directory: Path,
    *,
    edits: Sequence[str] = (),
    threads: int = 1,
    command: Command = run_command,
) -> dict[str, Any]:
    """Trains and ranks a model with a seed, or returns what an earlier run found.

    With ``edits`` the run is a trial, which is kept apart and never sees the part ``final``.

    Args:
        dataset: what to train on.
        name: a key of its models.
        seed: of the run.
        directory: of the data set; ``data`` is in it.
        edits: settings that are tried, as ``path=value``.
        threads: of the training.
        command: runs a `tzrec` command.

    Returns:
        ``passes`` (checkpoint → metrics on ``choose``) and its best as ``valid``, unless
        ``final`` is trained on; ``test`` unless it is a trial; ``seconds``, ``settings``.

    Raises:
        RuntimeError: a command failed, or another process is at the same run.
    """
    settings = settings_of(dataset, name, edits)
    kind = f"trials/{name}-{settings}" if edits else name
    place = directory / kind / f"seed{seed}"
    with locked(place):
        done = finished(place, settings)
        if done is not None:
            return done
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        final = directory / "data" / "final"
        alone = dataset.retrain and not edits
        part = final if alone else directory / "data" / "choose"
        result: dict[str, Any] = {"settings": settings, "edits": list(edits)}
        (place / "run.config").write_text(config_text(dataset, name))
        all_edits = [
            *(f"{key}={value}" for key, value in inputs(part).items()),
            *dataset.models[name].edits,
            *edits,
            f"train_config.seed={seed}",
        ]
        arguments = ["train", str(place / "run.config"), "--model-dir", str(place / "model")]
        arguments += [text for edit in all_edits for text in ("--set", edit)]
        started = time.perf_counter()
        command(arguments, place / "log.txt", threads)
        result["seconds"] = round(time.perf_counter() - started, 1)
        result |= _ranked(dataset, place / "model", directory / "data", edits)
        unfinished = place / "result.part"
        unfinished.write_text(json.dumps(result, indent=1) + "\n")
        unfinished.rename(place / "result.json")
        shutil.rmtree(place / "model")
    return result


def inputs(part: Path) -> dict[str, str]:
    """Returns the config fields that name the tables of a part."""
    return {
        "train_input_path": str(part / "train.parquet"),
        "data_config.negative_sampler.input_path": str(part / "items.parquet"),
    }


def _ranked(
    dataset: RankingSet, model_dir: Path, data: Path, edits: Sequence[str]
) -> dict[str, Any]:
    """Returns what a trained model is worth on ``choose`` and on ``final``."""
    checkpoints = sorted(model_dir.glob("model.ckpt-*"), key=lambda p: int(p.name.split("-")[1]))
    names, result = list(dataset.metrics), {}
    best = checkpoints[-1]
    if edits or not dataset.retrain:
        found = {path.name: rank(model_dir, path, data / "choose", names) for path in checkpoints}
        chosen = max(found, key=lambda name: found[name][dataset.select])
        best = model_dir / chosen
        result = {"passes": found, "valid": found[chosen], "best": chosen}
    if not edits:
        result["test"] = rank(model_dir, best, data / "final", names)
    return result


def number(value: float) -> str:
    """Returns a metric as papers write it: four decimals, no leading zero."""
    return f"{value:.4f}".removeprefix("0")


def spread(values: Sequence[float]) -> str:
    """Returns ``mean ± sd`` (sd of the sample), the value alone where there is only one."""
    mean = number(statistics.fmean(values))
    return f"{mean} ± {number(statistics.stdev(values))}" if len(values) > 1 else mean


def table_of(dataset: RankingSet, results: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> str:
    """Returns the table of the test part in Markdown: what is published, then ours."""
    rows = [["model", *dataset.metrics.values(), "seeds"]]
    rows.append(["---"] * len(rows[0]))
    rows += [[title, *values, "published"] for title, values in dataset.published.items()]
    for name, model in dataset.models.items():
        tests = [result["test"] for _, result in sorted(results.get(name, {}).items())]
        if tests:
            values = [spread([test[metric] for test in tests]) for metric in dataset.metrics]
            rows.append([f"tzrec: {model.title}", *values, str(len(tests))])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main(
    dataset: RankingSet,
    source: Path,
    doc: str,
    arguments: Sequence[str] | None = None,
    check: Callable[[Path], str] | None = None,
) -> int:
    """Runs what is missing and prints the table.

    Args:
        dataset: what to measure.
        source: where its files are unless ``--source`` says otherwise.
        doc: text of ``--help``.
        arguments: of the command line, None for those of the process.
        check: for ``--check``: takes the directory of the data and returns what to print.

    Returns:
        Exit code: 0, or 1 when a run failed.
    """
    args = _parser(dataset, source, doc, has_check=check is not None).parse_args(arguments)
    directory = args.dir.resolve() / dataset.folder
    data = directory / "data"
    if not data.exists():
        unfinished = data.with_name("data.part")
        shutil.rmtree(unfinished, ignore_errors=True)
        dataset.convert(args.source, unfinished)
        unfinished.rename(data)
    if check is not None and args.check:
        print(check(data))
        return 0
    names = list(dataset.models) if args.models == "all" else args.models.split(",")
    unknown = [name for name in names if name not in dataset.models]
    if unknown:
        sys.exit(f"no model {', '.join(unknown)}; there are {', '.join(dataset.models)}")
    tried = [
        [f"{path}={value}" for value in values.split(",")]
        for path, _, values in (text.partition("=") for text in args.tries)
    ]
    failed = 0
    for seed, name, *edits in itertools.product(range(1, args.seeds + 1), names, *tried):
        if not args.table:
            failed += not _attempt(dataset, name, seed, directory, edits, args.threads)
    if not tried:
        text = table_of(dataset, _finished(dataset, directory))
        (directory / "table.md").write_text(text)
        print(f"\n{text}")
    return 1 if failed else 0


def _parser(
    dataset: RankingSet, source: Path, doc: str, *, has_check: bool
) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="all", help=f"all, or of {','.join(dataset.models)}")
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 1 on (default 1)")
    parser.add_argument("--source", type=Path, default=source, help=f"default {source}")
    parser.add_argument("--dir", type=Path, default=ROOT / "experiments" / "accuracy")
    parser.add_argument("--threads", type=int, default=1, help="of a training (default 1)")
    parser.add_argument("--table", action="store_true", help="run nothing, print the table")
    if has_check:
        parser.add_argument("--check", action="store_true", help="check the metrics, run nothing")
    parser.add_argument(
        "--try",
        dest="tries",
        action="append",
        default=[],
        metavar="PATH=V1,V2",
        help="compare settings on the part `choose`; repeat it for all combinations",
    )
    return parser


def _attempt(
    dataset: RankingSet, name: str, seed: int, directory: Path, edits: Sequence[str], threads: int
) -> bool:
    """Says whether a run ended, and prints what it found."""
    what = " ".join([name, *edits, f"seed {seed}"])
    try:
        result = run(dataset, name, seed, directory, edits=edits, threads=threads)
    except RuntimeError as error:
        print(f"{what}: failed: {error}", flush=True)
        return False
    lines = [
        f"{part}: " + ", ".join(f"{t} {number(values[m])}" for m, t in dataset.metrics.items())
        for part, values in {**result.get("passes", {}), "test": result.get("test")}.items()
        if values
    ]
    print("\n  ".join([f"{what} ({result['seconds']:.0f} s)", *lines]), flush=True)
    return True


def _finished(dataset: RankingSet, directory: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Returns model → seed → result of all runs that ended with the settings of now."""
    results: dict[str, dict[int, dict[str, Any]]] = {}
    for name in dataset.models:
        for path in sorted((directory / name).glob("seed*/result.json")):
            result = finished(path.parent, settings_of(dataset, name))
            if result is not None:
                results.setdefault(name, {})[int(path.parent.name.removeprefix("seed"))] = result
    return results
