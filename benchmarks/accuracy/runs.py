"""Runs of a model on a data set through `tzrec train` and `tzrec eval`, and what came out.

A run is a directory below ``--dir``; a finished one holds ``result.json`` and is not run again
while its config stays the same. Several commands may share the work. Only the checkpoint that is
best on the valid part sees the test part, once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
_VALID_RESULTS = "train_eval_result_v2.txt"
_TEST_RESULTS = "test_result.txt"

# Runs a `tzrec` command and writes what it says to the file: (arguments, log file, threads).
Command = Callable[[Sequence[str], Path, int], None]


@dataclasses.dataclass(frozen=True)
class Model:
    """A row of a table.

    Attributes:
        title: its name in papers.
        published: metric → what was published, as text.
        edits: settings of this model alone, as ``path=value``.
        suffix: of the metrics' names where a model has several outputs.
    """

    title: str
    published: Mapping[str, str] = dataclasses.field(default_factory=dict)
    edits: tuple[str, ...] = ()
    suffix: str = ""

    def metrics_of(self, line: Mapping[str, float], dataset: DataSet) -> dict[str, float]:
        """Returns the metrics of the data set from a line of a result file."""
        return {metric: line[f"{metric}{self.suffix}"] for metric in dataset.metrics}


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A data set with the models that are measured on it.

    Attributes:
        name: as `tzrec data convert` knows it.
        folder: of the configs, below ``models``.
        metrics: metric of the evaluation → its title, the one that chooses a checkpoint first.
        models: name of the config file without ending → the row of the table.
        prepare: changes the converted data, in its directory.
    """

    name: str
    folder: str
    metrics: Mapping[str, str]
    models: Mapping[str, Model]
    prepare: Callable[[Path], None] | None = None

    @property
    def select(self) -> str:
        """The metric of the valid part that chooses a checkpoint."""
        return next(iter(self.metrics))


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the converted data and the runs are, and how many threads a run has."""

    data: Path
    runs: Path
    threads: int = 1


def run_command(arguments: Sequence[str], log: Path, threads: int) -> None:
    """Runs ``tzrec ARGUMENTS`` and appends its output to ``log``.

    Raises:
        RuntimeError: the command failed.
    """
    command = ["env", f"OMP_NUM_THREADS={threads}", sys.executable, "-m", "tzrec.cli", *arguments]
    with log.open("ab") as file:
        code = subprocess.run(
            command, stdout=file, stderr=subprocess.STDOUT, check=False
        ).returncode
    if code:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
        raise RuntimeError(f"tzrec {arguments[0]} ended with {code}, see {log}:\n{end}")


def config_text(dataset: DataSet, name: str, data: Path) -> str:
    """Returns the config of a model: the protocol, the converter's features, the model."""
    folder = HERE / "models" / dataset.folder
    parts = (folder / "protocol.config", data / "features.config", folder / f"{name}.config")
    files = {"train_input_path": "train", "eval_input_path": "valid"}
    head = [f'{field}: "{data / part}.parquet"\n' for field, part in files.items()]
    return "".join([*head, *(path.read_text() for path in parts)])


def finished(directory: Path, settings: str) -> dict[str, Any] | None:
    """Returns the result of a run that ended with these settings, None where there is none."""
    path = directory / "result.json"
    if not path.exists():
        return None
    result: dict[str, Any] = json.loads(path.read_text())
    return result if result["settings"] == settings else None


def settings_of(dataset: DataSet, name: str, data: Path, edits: Sequence[str] = ()) -> str:
    """Returns a fingerprint of all that decides a run besides its seed and the code."""
    text = config_text(dataset, name, data).replace(str(data), "DATA")
    whole = "\n".join([text, *dataset.models[name].edits, *edits])
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keeps other processes from the same run.

    Raises:
        RuntimeError: another process is at it.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_name(f"{directory.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError("another process is at it") from None
        yield


def run(
    dataset: DataSet,
    name: str,
    seed: int,
    place: Place,
    *,
    edits: Sequence[str] = (),
    command: Command = run_command,
) -> dict[str, Any]:
    """Trains and tests a model with a seed, or returns what an earlier run found.

    With ``edits`` the run is a trial, which is kept apart and never sees the test part.

    Args:
        dataset: what to train on.
        name: a key of its models.
        seed: of the run.
        place: where data and runs are.
        edits: settings that are tried, as ``path=value``.
        command: runs a `tzrec` command.

    Returns:
        ``valid`` and, unless it is a trial, ``test``: metric → value; ``evaluations``,
        ``seconds``, ``edits`` and ``settings``.

    Raises:
        RuntimeError: a command failed, or another process is at the same run.
    """
    settings = settings_of(dataset, name, place.data, edits)
    kind = f"trials/{name}-{settings}" if edits else name
    directory = place.runs / dataset.folder / kind / f"seed{seed}"
    with locked(directory):
        done = finished(directory, settings)
        if done is not None:
            return done
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        result: dict[str, Any] = {"settings": settings, "edits": list(edits)}
        (directory / "run.config").write_text(config_text(dataset, name, place.data))
        # A trial may change what the model's own edits set.
        all_edits = [*dataset.models[name].edits, *edits, f"train_config.seed={seed}"]
        result |= _train(dataset, name, place, directory, all_edits, command)
        if not edits:
            line = _test(place, directory, command)
            result["test"] = dataset.models[name].metrics_of(line, dataset)
        unfinished = directory / "result.part"
        unfinished.write_text(json.dumps(result, indent=1) + "\n")
        unfinished.rename(directory / "result.json")
        shutil.rmtree(directory / "model")
    return result


def _train(
    dataset: DataSet,
    name: str,
    place: Place,
    directory: Path,
    edits: Sequence[str],
    command: Command,
) -> dict[str, Any]:
    """Trains and returns what the valid part said."""
    arguments = ["train", str(directory / "run.config"), "--model-dir", str(directory / "model")]
    arguments += [text for edit in edits for text in ("--set", edit)]
    started = time.perf_counter()
    command(arguments, directory / "log.txt", place.threads)
    seconds = time.perf_counter() - started
    model = dataset.models[name]
    results = _json_lines(directory / "model" / _VALID_RESULTS)
    lines = [model.metrics_of(line, dataset) for line in results]
    return {
        "evaluations": len(lines),
        "seconds": round(seconds, 1),
        "valid": max(lines, key=lambda line: line[dataset.select]),
    }


def _test(place: Place, directory: Path, command: Command) -> dict[str, float]:
    """Returns the metrics of the best checkpoint on the test part."""
    model_dir = directory / "model"
    arguments = ["eval", str(model_dir / "pipeline.config"), "--checkpoint", "best"]
    arguments += ["--eval-input-path", str(place.data / "test.parquet")]
    arguments += ["--eval-result-filename", _TEST_RESULTS]
    command(arguments, directory / "log.txt", place.threads)
    return _json_lines(model_dir / _TEST_RESULTS)[-1]


def _json_lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
