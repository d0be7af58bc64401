"""TF32 switches: which section sets them, and that unwritten ones are left alone."""

import pytest
import torch

from tzrec.main import evaluate, export, predict, predict_checkpoint, train_and_evaluate
from tzrec.protos.export_pb2 import ExportConfig
from tzrec.protos.train_pb2 import TrainConfig
from tzrec.training.build import set_tf32


def _flags():
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def _set(cudnn, matmul):
    torch.backends.cudnn.allow_tf32 = cudnn
    torch.backends.cuda.matmul.allow_tf32 = matmul


@pytest.fixture(autouse=True)
def _restored():
    before = _flags()
    yield
    _set(*before)


@pytest.mark.parametrize("section", [TrainConfig, ExportConfig])
@pytest.mark.parametrize("before", [(False, False), (True, True), (False, True)])
@pytest.mark.parametrize("cudnn", [None, True, False])
@pytest.mark.parametrize("matmul", [None, True, False])
def test_only_what_is_written_is_set(section, before, cudnn, matmul):
    _set(*before)
    written = {"cudnn_allow_tf32": cudnn, "cuda_matmul_allow_tf32": matmul}
    set_tf32(section(**{name: value for name, value in written.items() if value is not None}))
    expected = [b if w is None else w for b, w in zip(before, written.values(), strict=True)]
    assert _flags() == tuple(expected)


def test_commands_follow_their_section(click_config, tmp_path):
    config = str(click_config())
    edits = [
        "train_config.num_epochs=0",
        "train_config.num_steps=1",
        "train_config.cudnn_allow_tf32=false",
        "train_config.cuda_matmul_allow_tf32=true",
        "export_config.cudnn_allow_tf32=true",
        "export_config.cuda_matmul_allow_tf32=false",
    ]
    source = str(tmp_path / "eval.parquet")
    of_training, of_export = (False, True), (True, False)

    def flags_after(command, *args, **kwargs):
        _set(False, False)
        command(*args, **kwargs)
        return _flags()

    assert flags_after(train_and_evaluate, config, edits=edits) == of_training
    assert flags_after(evaluate, config, edits=edits) == of_training
    scripted = str(tmp_path / "export")
    assert flags_after(export, config, scripted, edits=edits) == of_export
    assert flags_after(predict, source, str(tmp_path / "a"), scripted) == of_export
    target = str(tmp_path / "b")
    assert flags_after(predict_checkpoint, config, source, target, edits=edits) == of_export
