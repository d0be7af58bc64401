"""Averaged dense weights in a run: checkpoint, evaluation, export, prediction, resume."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys

from tzrec.errors import CheckpointError
from tzrec.main import evaluate, export, predict, predict_checkpoint, train_and_evaluate
from tzrec.training.checkpoint.find import read_results

EMA = "train_config.dense_optimizer.ema.decay=0.5"
OFF = "eval_config.use_dense_ema=false"


def _train(config, run, steps, *edits, **options):
    train_and_evaluate(
        str(config),
        edits=[
            f"model_dir={run}",
            "train_config.num_epochs=0",
            f"train_config.num_steps={steps}",
            *edits,
        ],
        **options,
    )
    return run


def _tensors(directory):
    return _load_state_dict_from_keys(checkpoint_id=str(directory))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Where the runs of `runs` lie, once for all tests."""
    return tmp_path_factory.mktemp("ema")


@pytest.fixture
def runs(click_config, shared, tmp_path):
    """Returns (config, run with averages, the same run without)."""
    config = click_config()
    for name, edits in (("averaged", [EMA]), ("plain", [])):
        if not (shared / name).exists():
            _train(config, shared / name, 6, "train_config.save_checkpoints_steps=1", *edits)
    return config, shared / "averaged", shared / "plain"


def test_checkpoint_holds_the_average_of_the_weights(runs):
    _, averaged, _ = runs
    names = set(_tensors(averaged / "model.ckpt-1" / "dense_ema")) - {"__n_averaged__"}
    assert names
    assert not any("embedding_bags" in name or ".embeddings." in name for name in names)
    # Saved after steps 1 to 5; the average of step 1 is the start of the oracle.
    stored = _tensors(averaged / "model.ckpt-1" / "dense_ema")
    expected = {name: stored[name].double().numpy() for name in names}
    for step in range(2, 6):
        weights = _tensors(averaged / f"model.ckpt-{step}" / "model")
        for name in names:
            expected[name] = 0.5 * expected[name] + 0.5 * weights[name].double().numpy()
    last = _tensors(averaged / "model.ckpt-5" / "dense_ema")
    assert int(last["__n_averaged__"]) == 6
    for name in names:
        np.testing.assert_allclose(last[name].numpy(), expected[name], rtol=1e-5, atol=1e-7)


def test_training_is_the_same_with_averages(runs):
    _, averaged, plain = runs
    first, second = (_tensors(run / "model.ckpt-5" / "model") for run in (averaged, plain))
    assert set(first) == set(second)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert not (plain / "model.ckpt-5" / "dense_ema").exists()


def test_evaluation_uses_the_average_unless_told_otherwise(runs):
    config, averaged, plain = runs
    of_average, of_weights = (read_results(run)[-1] for run in (averaged, plain))
    key = "binary_cross_entropy"
    assert of_average[key] != of_weights[key]
    edits = [f"model_dir={averaged}", EMA]
    assert evaluate(str(config), edits=edits)[key] == pytest.approx(of_average[key], abs=1e-6)
    without = evaluate(str(config), edits=[*edits, OFF])
    assert without[key] == pytest.approx(of_weights[key], abs=1e-6)


def test_evaluation_in_training_can_use_the_weights(runs, tmp_path):
    config, _, plain = runs
    run = _train(config, tmp_path / "off", 3, "train_config.save_checkpoints_steps=1", EMA, OFF)
    assert read_results(run) == read_results(plain)[:2]


def _scores(directory):
    (part,) = directory.glob("part-*.parquet")
    return pq.read_table(part).column("probs").to_numpy()


def test_export_and_prediction_use_the_average_unless_told_otherwise(runs, tmp_path):
    config, averaged, plain = runs
    source = str(tmp_path / "eval.parquet")
    edits = [f"model_dir={averaged}", EMA]
    export(str(config), str(tmp_path / "export"), edits=edits)
    predict(source, str(tmp_path / "exported"), str(tmp_path / "export"))

    def of_checkpoint(name, edits):
        predict_checkpoint(str(config), source, str(tmp_path / name), edits=edits)
        return _scores(tmp_path / name)

    of_average = of_checkpoint("average", edits)
    np.testing.assert_allclose(_scores(tmp_path / "exported"), of_average, atol=1e-6)
    of_weights = of_checkpoint("weights", [*edits, "export_config.use_dense_ema=false"])
    assert not np.allclose(of_weights, of_average)
    np.testing.assert_array_equal(of_weights, of_checkpoint("plain", [f"model_dir={plain}"]))


def test_a_checkpoint_without_averages_says_what_to_do(runs):
    config, _, plain = runs
    with pytest.raises(CheckpointError, match="it has no averages") as caught:
        evaluate(str(config), edits=[f"model_dir={plain}", EMA])
    assert "use_dense_ema: false" in str(caught.value)
    evaluate(str(config), edits=[f"model_dir={plain}", EMA, OFF])


def test_a_resumed_run_has_the_same_average(runs, tmp_path):
    config, averaged, _ = runs
    edits = ["train_config.save_checkpoints_steps=1", EMA]
    run = _train(config, tmp_path / "resumed", 3, *edits)
    _train(config, run, 6, *edits, continue_train=True)
    expected = _tensors(averaged / "model.ckpt-5" / "dense_ema")
    actual = _tensors(run / "model.ckpt-5" / "dense_ema")
    assert set(actual) == set(expected)
    for name, value in expected.items():
        assert torch.equal(torch.as_tensor(actual[name]), torch.as_tensor(value)), name
    assert read_results(run)[-1] == read_results(averaged)[-1]


def test_accumulation_resumes_between_two_updates(click_config, tmp_path):
    config = click_config()
    edits = [EMA, "train_config.gradient_accumulation_steps=3"]
    whole = _train(config, tmp_path / "whole", 8, *edits)
    run = _train(config, tmp_path / "parts", 4, *edits)
    _train(config, run, 8, *edits, continue_train=True)
    for part in ("model", "dense_ema"):
        expected = _tensors(whole / "model.ckpt-7" / part)
        actual = _tensors(run / "model.ckpt-7" / part)
        for name, value in expected.items():
            assert torch.equal(torch.as_tensor(actual[name]), torch.as_tensor(value)), name
    assert int(actual["__n_averaged__"]) == 2
