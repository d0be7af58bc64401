"""The commands as a user starts them: files, exit codes, one line for each mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[1]
QUICK = ["--set", "train_config.num_epochs=1"]


@pytest.fixture
def command(tmp_path):
    """Runs ``python -m MODULE ARGUMENTS`` in another directory."""

    def run(module, *arguments):
        return subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},  # noqa: TID251
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def assert_fails(done, code, *words):
    """One message, after the lines of the log, and perhaps a hint."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    message = [line for line in done.stderr.splitlines() if not line.startswith(("[", " "))]
    assert len(message) == 1, done.stderr
    for word in words:
        assert word in done.stderr


def test_from_data_to_predictions(click_config, tmp_path, command):
    config = click_config()
    done = command("tzrec.cli", "train", config, *QUICK)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    saved, result = run / "pipeline.config", run / "train_eval_result_v2.txt"
    last = json.loads(result.read_text().splitlines()[-1])
    # 1000 rows in batches of 64, counted from 0.
    assert last["global_step"] == 15

    done = command("tzrec.cli", "eval", saved)
    assert done.returncode == 0, done.stderr
    line = json.loads((run / "eval_result.txt").read_text())
    assert line["auc"] == pytest.approx(last["auc"], abs=1e-6)

    done = command("tzrec.cli", "export", saved, "--export-dir", "export")
    assert done.returncode == 0, done.stderr
    scores = {}
    for output, model in (("scripted", "export"), ("eager", saved)):
        flags = ["--input", "eval.parquet", "--output", output, "--output-columns", "probs"]
        done = command("tzrec.cli", "predict", model, *flags, "--reserved-columns", "row")
        assert done.returncode == 0, done.stderr
        table = pq.read_table(tmp_path / output / "part-0.parquet")
        assert table.column_names == ["probs", "row"]
        assert table["row"].to_pylist() == list(range(500))
        scores[output] = np.array(table["probs"])
    assert scores["eager"].std() > 0.01
    np.testing.assert_allclose(scores["scripted"], scores["eager"], rtol=0, atol=1e-6)


def test_the_module_of_the_interface(click_config, tmp_path, command):
    """Trains; then is continued where there is nothing left to do."""
    config = click_config()
    flags = ["--pipeline_config_path", config, "--model_dir", "other"]
    edit = ["--edit_config_json", json.dumps({"train_config.num_epochs": 1})]
    done = command("tzrec.train_eval", *flags, *edit)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "other" / "model.ckpt-15").is_dir()
    assert not (tmp_path / "run").exists()
    assert_fails(command("tzrec.train_eval", *flags, *edit), 4, "--continue_train")


def test_wrong_configs_say_where(click_config, tmp_path, command):
    config = click_config()
    text = config.read_text().replace("embedding_dim: 8", "embeding_dim: 8", 1)
    config.write_text(text.replace('label_fields: "clk"', 'label_feilds: "clk"'))
    done = command("tzrec.cli", "train", config)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    # Both mistakes at once, each with its line.
    for wrong in ("embeding_dim", "label_feilds"):
        line = next(i for i, t in enumerate(config.read_text().splitlines(), 1) if wrong in t)
        assert f"click.config:{line}" in done.stderr
    assert "did you mean 'embedding_dim'" in done.stderr
    assert not (tmp_path / "run").exists()


def test_missing_files(click_config, tmp_path, command):
    config = click_config()
    assert_fails(command("tzrec.cli", "train", "none.config"), 2, "none.config")
    (tmp_path / "eval.parquet").unlink()
    assert_fails(command("tzrec.cli", "train", config), 3, "eval.parquet")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_a_number(click_config, tmp_path, command):
    config = click_config()
    table = pq.read_table(tmp_path / "train.parquet")
    price = np.array(table["price"])
    price[700] = np.nan
    table = table.set_column(table.column_names.index("price"), "price", pa.array(price))
    pq.write_table(table, tmp_path / "train.parquet")
    done = command("tzrec.cli", "train", config)
    assert_fails(done, 3, "price", "not finite", "binary_cross_entropy is nan")
    assert not list((tmp_path / "run").glob("model.ckpt-15"))
