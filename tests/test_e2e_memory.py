"""Input by fsspec paths: `memory://` files give the same run as local ones."""

import fsspec
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
import torch
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys

from tzrec.errors import DataError
from tzrec.main import evaluate, predict_checkpoint, train_and_evaluate
from tzrec.training.checkpoint.find import list_checkpoints, read_results

CSV = ["data_config.dataset_type=CsvDataset", "data_config.with_header=true"]


@pytest.fixture
def memory():
    """An empty directory in memory, its files as a file system."""
    system = fsspec.filesystem("memory")
    system.pseudo_dirs.append("/clicks")
    yield system
    system.rm("/clicks", recursive=True)


def weights(run):
    return _load_state_dict_from_keys(checkpoint_id=str(list_checkpoints(run)[-1] / "model"))


def copy(system, source, target):
    with system.open(target, "wb") as file:
        file.write(source.read_bytes())


def test_a_run_on_files_in_memory_is_the_run_on_local_files(click_config, tmp_path, memory):
    config = str(click_config())
    table = pq.read_table(tmp_path / "train.parquet")
    # Two parts, in the order of the one file.
    for i, rows in enumerate((table[:600], table[600:])):
        pq.write_table(rows, tmp_path / f"part-{i}.parquet", row_group_size=300)
        copy(memory, tmp_path / f"part-{i}.parquet", f"/clicks/train/part-{i}.parquet")
    copy(memory, tmp_path / "eval.parquet", "/clicks/eval.parquet")
    paths = {
        "local": (f"{tmp_path}/part-*.parquet", f"{tmp_path}/eval.parquet"),
        "memory": ("memory://clicks/train/*.parquet", "memory://clicks/eval.parquet"),
    }
    for name, (train, held_out) in paths.items():
        run = str(tmp_path / name)
        train_and_evaluate(
            config,
            train_input_path=train,
            eval_input_path=held_out,
            model_dir=run,
            edits=["train_config.num_epochs=1"],
        )
    local, remote = weights(tmp_path / "local"), weights(tmp_path / "memory")
    assert all(torch.equal(local[key], remote[key]) for key in local)
    assert read_results(tmp_path / "local") == read_results(tmp_path / "memory")

    saved = str(tmp_path / "memory" / "pipeline.config")
    last = read_results(tmp_path / "memory")[-1]
    assert evaluate(saved)["auc"] == pytest.approx(last["auc"], abs=1e-9)
    predict_checkpoint(
        saved,
        "memory://clicks/eval.parquet",
        "memory://clicks/scores",
        reserved_columns="row",
        output_columns="probs",
    )
    with memory.open("/clicks/scores/part-0.parquet") as file:
        assert pq.read_table(file)["row"].to_pylist() == list(range(500))


def test_csv_in_memory(click_config, tmp_path, memory):
    config = str(click_config())
    for name in ("train", "eval"):
        table = pq.read_table(tmp_path / f"{name}.parquet")
        with memory.open(f"/clicks/{name}.csv", "wb") as file:
            pc.write_csv(table, file)
    train_and_evaluate(
        config,
        train_input_path="memory://clicks/train.csv",
        eval_input_path="memory://clicks/eval.csv",
        edits=["train_config.num_epochs=1", *CSV],
    )
    assert read_results(tmp_path / "run")[-1]["auc"] > 0.6


def test_a_file_that_is_not_there(click_config):
    with pytest.raises(DataError, match="memory://clicks/none"):
        train_and_evaluate(str(click_config()), train_input_path="memory://clicks/none/*.parquet")
