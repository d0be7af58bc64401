"""A run on a Kafka topic: kills, signals, checkpoints by event time, offsets of its group."""

import json
import logging
import os
import random
import re
import signal
import threading
import time

import pyarrow.parquet as pq
import pytest
from click_log import click_table
from kafka_broker import payload
from kill_runs import Runs
from test_training_kill import everything, read_log, same

from tzrec.cli import main
from tzrec.main import evaluate, train_and_evaluate
from tzrec.training.checkpoint.find import list_checkpoints, read_results
from tzrec.training.checkpoint.restore import read_data_position
from tzrec.training.hooks.signals import Interrupted

T0 = 1_700_000_000
SIZE, MESSAGES, PARTITIONS = 17, 36, 3
EDITS = [
    "train_config.num_epochs=1",
    "train_config.save_checkpoints_steps=3",
    "data_config.batch_size=32",
]
WHOLE = {"end_offset": "latest"}


def send(brokers, name, *, first=0, number=MESSAGES, seconds=1):
    """Sends the rows of a click log, ``SIZE`` a message."""
    table = click_table(SIZE * MESSAGES * 2, 1)
    messages = []
    for message in range(first, first + number):
        rows = table.slice(message * SIZE, SIZE)
        time_ms = 1000 * (T0 + seconds * message)
        messages.append((message % PARTITIONS, payload(rows), time_ms))
    brokers.send(name, *messages)


@pytest.fixture(scope="module")
def clicks(brokers):
    """A topic that nobody appends to."""
    brokers.create("stream.clicks", PARTITIONS)
    send(brokers, "stream.clicks")
    return "stream.clicks"


@pytest.fixture(scope="module")
def config(tmp_path_factory, click_files):
    return click_files(tmp_path_factory.mktemp("stream"), "adagrad_optimizer", shuffle=False)


def train(config, run, path, *edits, eval_path=""):
    train_and_evaluate(
        str(config),
        model_dir=str(run),
        train_input_path=path,
        eval_input_path=eval_path,
        continue_train=True,
        edits=[*EDITS, *edits],
        report=False,
    )


def steps_of(run):
    return [int(path.name.partition("-")[2]) for path in list_checkpoints(run)]


@pytest.fixture(scope="module")
def runs(config, tmp_path_factory):
    """A warm process; it has not talked to brokers, since it is forked."""
    run = str(tmp_path_factory.mktemp("warm") / "run")
    warm = Runs(["train", str(config), "--model_dir", run, "--set", "train_config.num_epochs=1"])
    yield warm
    warm.close()


def arguments(config, run, path):
    flags = [part for edit in EDITS for part in ("--set", edit)]
    paths = ["--train_input_path", path, "--eval_input_path", ""]
    return ["train", str(config), "--model_dir", str(run), "--continue_train", *paths, *flags]


def test_killed_runs_read_nothing_twice_and_lose_nothing(brokers, clicks, config, runs, tmp_path):
    """Bit for bit the run that nobody killed, offsets that were committed included."""
    rng = random.Random(4)
    whole, log = tmp_path / "whole", tmp_path / "whole.log"
    path = brokers.uri(clicks, "whole", **WHOLE)
    assert runs.run(arguments(config, whole, path), log=log) == 0
    calls = max(entry["calls"] for entry in read_log(log) if "calls" in entry)
    expected = {entry["step"]: entry for entry in read_log(log) if "rows" in entry}
    assert len(expected) == -(-SIZE * MESSAGES // 32)
    run, log = tmp_path / "killed", tmp_path / "killed.log"
    path, codes = brokers.uri(clicks, "killed", **WHOLE), []
    points = [
        {"step": 2, "when": "backward"},
        {"step": 5, "when": "end"},
        {"save": 1, "call": rng.randrange(calls)},
        {"step": 4, "when": "start"},
        {"save": 2, "call": rng.randrange(calls)},
    ]
    for point in points:
        codes.append(runs.run(arguments(config, run, path), point=point, log=log))
        # Others see what a checkpoint says, the last one or, as that takes a moment, one before.
        allowed = [[-1001] * PARTITIONS]
        for saved in list_checkpoints(run):
            offsets = read_data_position(saved)["position"]["offsets"]
            allowed.append([offsets[f"{clicks}:{p}"] + 1 for p in range(PARTITIONS)])
        assert brokers.committed(clicks, "killed", PARTITIONS) in allowed
    assert codes == [-signal.SIGKILL] * len(points)
    assert runs.run(arguments(config, run, path), log=log) == 0
    found = {entry["step"]: entry for entry in read_log(log) if "rows" in entry}
    for entry in (*expected.values(), *found.values()):
        # The first batch of a process also tells where partitions begin.
        entry["rows"] = {name: mark for name, mark in entry["rows"].items() if mark != [0, 0]}
    assert found.keys() == expected.keys()
    same(everything(list_checkpoints(whole)[-1]), everything(list_checkpoints(run)[-1]))
    ends = [MESSAGES // PARTITIONS] * PARTITIONS
    assert brokers.committed(clicks, "whole", PARTITIONS) == ends
    assert brokers.committed(clicks, "killed", PARTITIONS) == ends


def test_a_stream_is_a_file_to_the_weights(brokers, clicks, config, tmp_path):
    """The same rows in the same batches, from Parquet."""
    files = tmp_path / "rows.parquet"
    pq.write_table(click_table(SIZE * MESSAGES * 2, 1).slice(0, SIZE * MESSAGES), files)
    train(config, tmp_path / "file", str(files))
    train(config, tmp_path / "stream", brokers.uri(clicks, "weights", **WHOLE))
    of_file, of_stream = (
        everything(list_checkpoints(tmp_path / name)[-1]) for name in ("file", "stream")
    )
    # The last batch of a file is as long as that of the stream: so is all that follows.
    same(of_file["model"], of_stream["model"])


def test_an_idle_run_ends_on_sigterm_and_goes_on(brokers, topic, config, tmp_path, caplog):
    name, run = topic(PARTITIONS), tmp_path / "run"
    send(brokers, name)
    path = brokers.uri(name, auto_offset_reset="earliest")
    number = SIZE * MESSAGES // 32

    def interrupt():
        while f"step {number}" not in caplog.text:
            time.sleep(0.05)
        time.sleep(0.5)  # it waits for messages now
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with caplog.at_level(logging.INFO, logger="tzrec"), pytest.raises(Interrupted, match="SIGTERM"):
        train(config, run, path, "train_config.log_step_count_steps=1")
    thread.join()
    assert steps_of(run)[-1] == number - 1
    offsets = read_data_position(list_checkpoints(run)[-1])["position"]
    committed = [offsets["offsets"][f"{name}:{p}"] + 1 for p in range(PARTITIONS)]
    assert brokers.committed(name, "g", PARTITIONS) == committed
    # How far behind it was at each step.
    behind = [int(found) for found in re.findall(r"stream \S+: (\d+) messages behind", caplog.text)]
    assert behind[0] > behind[10] > behind[-1]
    assert behind[-1] <= 2
    assert "newest event 2023-11-14 22:13:" in caplog.text
    # More messages: the rest of the old ones comes first, nothing is read again.
    send(brokers, name, first=MESSAGES)
    steps = SIZE * MESSAGES * 2 // 32
    train(
        config, run, path, "train_config.num_epochs=0", f"train_config.num_steps={steps}",
        "train_config.log_step_count_steps=100",
    )  # fmt: skip
    assert steps_of(run)[-1] == steps - 1
    left = SIZE * MESSAGES * 2 - 32 * steps
    position = read_data_position(list_checkpoints(run)[-1])["position"]
    read = sum(offset + 1 for offset in position["offsets"].values()) * SIZE
    read += sum(position["rows"].values())
    assert read == SIZE * MESSAGES * 2 - left


def test_checkpoints_by_the_time_of_messages(brokers, topic, config, tmp_path):
    """No column has the time: a message's own counts, in seconds."""
    name, run = topic(PARTITIONS), tmp_path / "run"
    send(brokers, name, seconds=10)
    every = [
        "train_config.save_checkpoints_steps=0",
        "train_config.save_checkpoints_timestamp_interval=100",
    ]
    train(config, run, brokers.uri(name, **WHOLE), *every)
    batches = -(-SIZE * MESSAGES // 32)
    newest = [T0 + 10 * min((32 * (step + 1) - 1) // SIZE, MESSAGES - 1) for step in range(batches)]
    due = [s for s in range(1, batches) if newest[s] // 100 > newest[s - 1] // 100]
    assert steps_of(run) == sorted({*due, batches - 1})
    assert len(due) == 3
    found = read_data_position(run / f"model.ckpt-{due[0]}")
    assert found["__data_ts_watermark__"] == newest[due[0]]


def test_evaluation_reads_a_stream_to_its_end(brokers, clicks, config, tmp_path):
    """While training, and as a command; the same metrics as from a file."""
    files, run = tmp_path / "rows.parquet", tmp_path / "run"
    pq.write_table(click_table(SIZE * MESSAGES * 2, 1).slice(0, SIZE * MESSAGES), files)
    path = brokers.uri(clicks, "evaluation")
    train(config, run, str(files), "train_config.save_checkpoints_steps=6", eval_path=path)
    saved = str(run / "pipeline.config")
    by_file = evaluate(saved, eval_input_path=str(files), report=False)
    by_stream = evaluate(saved, eval_input_path=path, report=False)
    assert by_file == by_stream
    rows = read_results(run)
    assert len(rows) == 4
    assert {k: v for k, v in rows[-1].items() if k != "global_step"} == by_stream
    assert brokers.committed(clicks, "evaluation", PARTITIONS) == [-1001] * PARTITIONS


def test_predicting_a_stream(brokers, clicks, config, tmp_path):
    run, export = tmp_path / "run", str(tmp_path / "export")
    files = tmp_path / "rows.parquet"
    pq.write_table(click_table(SIZE * MESSAGES * 2, 1).slice(0, SIZE * MESSAGES), files)
    train(config, run, str(files), "train_config.save_checkpoints_steps=0")
    assert main(["export", str(run / "pipeline.config"), "--export_dir", export]) == 0
    tables = []
    for name, path in [("file", str(files)), ("stream", brokers.uri(clicks, "predict"))]:
        out = str(tmp_path / name)
        arguments = ["--input", path, "--output", out, "--reserved_columns", "row"]
        assert main(["predict", export, *arguments]) == 0
        tables.append(pq.read_table(out))
    assert tables[1]["row"].to_pylist() == list(range(SIZE * MESSAGES))
    assert tables[0].equals(tables[1])


def test_a_checkpoint_of_another_program(brokers, clicks, config, tmp_path, caplog):
    """Offsets by partition, as the interface keeps them."""
    run = tmp_path / "run"
    train(config, run, brokers.uri(clicks, "foreign", **WHOLE))
    (saved,) = [path for path in list_checkpoints(run) if path.name.endswith("-12")]
    data = read_data_position(saved)
    for path in list_checkpoints(run):
        if path != saved:
            (path / "dataloader_state.json").unlink()
            os.rename(path, tmp_path / path.name)
    (saved / "trainer_state.pt").unlink()
    offsets = {f"{clicks}:0": 11, f"{clicks}:1": 11, f"{clicks}:2": 9}
    (saved / "dataloader_state.json").write_text(json.dumps({**offsets, "__epochs_completed__": 0}))
    (saved / "manifest.json").unlink(missing_ok=True)
    assert data["position"]["offsets"]
    train(config, run, brokers.uri(clicks, "foreign", **WHOLE))
    assert "it goes on with stream.clicks:0 before offset 12" in caplog.text
    # Two messages of 17 rows were left.
    assert steps_of(run)[-1] == 12 + 2
