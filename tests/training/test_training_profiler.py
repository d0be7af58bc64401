"""The profiler: which steps it records, its trace, its summary, runs that are too short."""

import json
import logging
from types import SimpleNamespace

import pytest
from test_training_trainer import _trainer

from tzrec.main import train_and_evaluate
from tzrec.training.hooks.profiler import ProfilerHook
from tzrec.training.location import location
from tzrec.training.profiling import StepProfiler, profile_table


def _profiled(tmp_path, num_steps):
    trainer = _trainer([ProfilerHook(tmp_path)], num_steps=num_steps)
    trainer.fit()
    return [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]


def _ranges(trace, prefix):
    return [
        event for event in trace["traceEvents"] if str(event.get("name", "")).startswith(prefix)
    ]


def test_ten_steps_are_recorded_after_two(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="tzrec")
    (trace,) = _profiled(tmp_path, num_steps=20)
    steps = {event["name"] for event in _ranges(trace, "ProfilerStep#")}
    assert steps == {f"ProfilerStep#{number}" for number in range(2, 12)}
    for part in ("data", "forward", "backward", "update", "metrics"):
        assert len({event["ts"] for event in _ranges(trace, f"part: {part}")}) >= 10, part
    (summary,) = [r.message for r in caplog.records if r.message.startswith("profile of ")]
    assert summary.startswith("profile of 10 steps")
    assert str(tmp_path) in summary


def test_summary_tells_time_by_part_and_operator(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="tzrec")
    _profiled(tmp_path, num_steps=12)
    (summary,) = [r.message for r in caplog.records if r.message.startswith("profile of ")]
    first, second = summary.partition("\n")[2].split("\n\n")
    names = [line.split()[0] for line in first.splitlines()]
    assert names[0] == "part"
    assert names[-1] == "total"
    assert {"data", "forward", "backward", "update", "other"} <= set(names)
    assert second.splitlines()[0].split() == [
        "operator",
        "(own",
        "CPU",
        "time)",
        "ms/step",
        "share",
        "calls/step",
    ]
    assert "aten::mul" in second
    for other in ("part:", "ProfilerStep"):
        assert other not in second


def test_the_model_is_shown(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="tzrec")
    _profiled(tmp_path, num_steps=1)
    assert any("profiling the model\n_Wrapper(" in record.message for record in caplog.records)


def test_a_short_run_is_summed_up_as_far_as_it_went(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="tzrec")
    (trace,) = _profiled(tmp_path, num_steps=5)
    assert len({event["name"] for event in _ranges(trace, "ProfilerStep#")}) in (3, 4)
    assert any(record.message.startswith("profile of 3 steps") for record in caplog.records)


@pytest.mark.parametrize("num_steps", [1, 2])
def test_a_run_without_a_step_to_record_says_so(tmp_path, caplog, num_steps):
    caplog.set_level(logging.WARNING, logger="tzrec")
    assert _profiled(tmp_path, num_steps) == []
    (record,) = caplog.records
    assert f"there were {num_steps} steps, the first 2 are never recorded" in record.message


def test_training_is_as_without_the_profiler(tmp_path):
    plain = _trainer([], num_steps=14)
    plain.fit()
    profiled = _trainer([ProfilerHook(tmp_path)], num_steps=14)
    profiled.fit()
    assert profiled.base_model.w.item() == plain.base_model.w.item()
    assert profiled.timer.on_lap is None


def test_an_error_ends_the_profiler(tmp_path):
    trainer = _trainer([ProfilerHook(tmp_path)], num_steps=14)
    steps = trainer._run_step

    def fail(batch):
        if trainer.state.step == 5:
            raise KeyboardInterrupt
        steps(batch)

    trainer._run_step = fail
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    # Another profiler can start: the first one is over.
    again = StepProfiler(tmp_path)
    again.start()
    again.close()


def test_a_whole_run_with_saves_and_evaluations_among_its_steps(click_config, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="tzrec")
    edits = [
        "train_config.is_profiling=true",
        "train_config.num_epochs=0",
        "train_config.num_steps=12",
        "train_config.save_checkpoints_steps=9",
        "eval_config.num_steps=1",
    ]
    train_and_evaluate(str(click_config()), edits=edits)
    (summary,) = [r.message for r in caplog.records if r.message.startswith("profile of 10 steps")]
    parts, operators = summary.split("\n\n")
    assert {"saving", "evaluation"} <= {line.split()[0] for line in parts.splitlines()[1:]}
    assert len(operators.splitlines()) == 13
    assert len(list((tmp_path / "run" / "train_eval_trace").glob("*.json"))) == 1


def test_traces_of_a_remote_run(caplog):
    import fsspec

    caplog.set_level(logging.INFO, logger="tzrec")
    _trainer([ProfilerHook(location("memory://profiled/train_eval_trace"))], num_steps=12).fit()
    (name,) = fsspec.filesystem("memory").ls("/profiled/train_eval_trace", detail=False)
    assert name.endswith(".pt.trace.json")


def test_a_trace_that_cannot_be_written_ends_no_run(caplog, monkeypatch):
    caplog.set_level(logging.INFO, logger="tzrec")

    def unreachable(*args, **kwargs):
        raise RuntimeError("no route to host")

    monkeypatch.setattr("tzrec.storage.upload_tree", unreachable)
    trainer = _trainer([ProfilerHook(location("memory://unreachable"))], num_steps=13)
    trainer.fit()
    assert trainer.state.step == 13
    said = [record.message for record in caplog.records]
    assert "the trace cannot be written: no route to host" in said
    assert any(message.startswith("profile of 10 steps") for message in said)


def _operator(key, own_ms, count, device_ms=0.0):
    return SimpleNamespace(
        key=key,
        count=count,
        self_cpu_time_total=1000 * own_ms,
        self_device_time_total=1000 * device_ms,
    )


def test_table_is_per_step_and_sorted():
    operators = [_operator("a", 2, 4), _operator("b" * 60, 8, 2)]
    lines = profile_table(
        {"forward": 3.0, "saving": 0.0}, operators, steps=2, total=10.0
    ).splitlines()
    assert [line.split() for line in lines] == [
        ["part", "ms/step", "share"],
        ["forward", "3.000", "30.0%"],
        ["total", "10.000", "100.0%"],
        [],
        ["operator", "(own", "CPU", "time)", "ms/step", "share", "calls/step"],
        ["b" * 41 + "…", "4.000", "40.0%", "1.0"],
        ["a", "1.000", "10.0%", "2.0"],
    ]


def test_table_shows_device_time_where_there_is_some():
    operators = [_operator("cpu", 9, 1), _operator("gemm", 1, 1, device_ms=5)]
    text = profile_table({}, operators, steps=1, total=10.0)
    assert "operator (own device time)" in text
    assert text.index("gemm") < text.index("cpu ")
