"""A run on features that were generated offline ends with the same weights, bit by bit."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
import torch
from feed_data import FEED, feed_table, write_tokenizer
from torch.distributed.checkpoint._nested_dict import flatten_state_dict
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys

from tzrec.cli import main
from tzrec.config import load_pipeline_config
from tzrec.main import train_and_evaluate
from tzrec.training.checkpoint.find import list_checkpoints

ROWS = 640
# Two passes, optimizers with state, and rows in which some features are hidden.
EDITS = (
    "train_config.num_epochs=2",
    "train_config.use_tensorboard=false",
    "data_config.batch_size=128",
    "data_config.loader=THREAD",
    "data_config.sample_mask_prob=0.3",
)
MASKED = ("user_id", "price_range", "log_price", "price_bin")


def mask_edits():
    """Masks on some features, ids and numbers."""
    for number, wrapper in enumerate(load_pipeline_config(FEED).feature_configs):
        kind = wrapper.WhichOneof("feature")
        if getattr(wrapper, kind).DESCRIPTOR.fields_by_name.get("feature_name") is None:
            continue
        if getattr(wrapper, kind).feature_name in MASKED:
            yield f"feature_configs[{number}].{kind}.use_mask=true"


def weights_of(source, model_dir, *edits):
    """The weights of a run, and the state of its optimizers."""
    train_and_evaluate(
        str(FEED),
        train_input_path=str(source),
        model_dir=str(model_dir),
        edits=(*EDITS, "eval_input_path=", *mask_edits(), *edits),
    )
    checkpoint = list_checkpoints(model_dir)[-1]
    parts = {part: _read(checkpoint / part) for part in ("model", "optimizer")}
    return {f"{part}.{name}": value for part in parts for name, value in parts[part].items()}


def _read(part):
    return flatten_state_dict(_load_state_dict_from_keys(checkpoint_id=str(part)))[0]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    root = tmp_path_factory.mktemp("offline")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_tokenizer(root)
        pq.write_table(feed_table(0, ROWS), root / "raw.parquet")
        yield root, weights_of(root / "raw.parquet", root / "run")


@pytest.mark.parametrize(
    ("flags", "mode"), [([], "FG_NONE"), (["--bucketize-later"], "FG_BUCKETIZE")]
)
def test_weights_are_those_of_generating_while_training(raw, tmp_path, flags, mode):
    root, wanted = raw
    out = tmp_path / "features"
    command = ["fg", str(FEED), "--data", str(root / "raw.parquet"), "--out", str(out), *flags]
    assert main(command) == 0
    found = weights_of(out, tmp_path / "run", f"data_config.fg_mode={mode}")
    assert found.keys() == wanted.keys()
    tensors = [name for name, value in wanted.items() if isinstance(value, torch.Tensor)]
    assert any(name.startswith("optimizer") for name in tensors)
    for name in tensors:
        assert torch.equal(found[name], wanted[name]), name
