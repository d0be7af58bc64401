"""``tzrec predict --is_profiling``: its trace, its summary, and the same predictions."""

import json
import logging

import pyarrow.parquet as pq
import pytest

from tzrec.main import export, predict, train_and_evaluate

EDITS = ["train_config.num_epochs=0", "train_config.num_steps=2"]


@pytest.fixture
def exported(click_config, tmp_path):
    config = str(click_config())
    train_and_evaluate(config, edits=EDITS)
    export(config, str(tmp_path / "export"), edits=EDITS)
    return tmp_path / "export"


@pytest.mark.parametrize("threads", [1, 3])
def test_profile_of_a_prediction(exported, tmp_path, caplog, threads):
    caplog.set_level(logging.INFO, logger="tzrec")

    def run(name, **options):
        source, target = str(tmp_path / "eval.parquet"), tmp_path / name
        predict(source, str(target), str(exported), batch_size=25, **options)
        return pq.read_table(next(target.glob("part-*.parquet")))

    profiled = run("profiled", is_profiling=True, predict_threads=threads)
    (summary,) = [r.message for r in caplog.records if r.message.startswith("profile of 10 steps")]
    assert "forward" in summary
    (path,) = (exported / "predict_trace").glob("*.json")
    events = json.loads(path.read_text())["traceEvents"]
    # 20 batches were scored, on threads that the profiler did not start.
    lookups = [e for e in events if "embedding" in str(e.get("name"))]
    assert len(lookups) >= 5
    assert {e["tid"] for e in lookups} != {
        e["tid"] for e in events if str(e.get("name", "")).startswith("ProfilerStep#")
    }
    # The directory is still an export, and its scores are the same.
    assert run("again").equals(profiled)
