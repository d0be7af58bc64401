"""What the sparse optimizers of a config ask of the rest of it."""

import pytest
from config_samples import DEEPFM, write

from tzrec.config import prepare
from tzrec.config.specs import SPARSE_OPTIMIZERS

ZEROS = ("num_buckets: 1000", 'num_buckets: 1000 init_fn: "nn.init.zeros_"')
STAYS = "feature_configs[0].id_feature.init_fn: rows that start as zeros never move under"


def warnings_of(tmp_path, optimizer, *changes):
    chosen = ("adagrad_optimizer { lr: 0.001 }", f"{optimizer} {{ lr: 0.001 }}")
    path = write(tmp_path / "c.config", DEEPFM, chosen, *changes)
    return list(prepare(path, log_warnings=False).warning_lines())


@pytest.mark.parametrize("optimizer", SPARSE_OPTIMIZERS)
def test_every_sparse_optimizer_is_accepted(tmp_path, optimizer):
    assert warnings_of(tmp_path, optimizer) == []


@pytest.mark.parametrize("optimizer", SPARSE_OPTIMIZERS)
def test_rows_that_would_never_move_are_told(tmp_path, optimizer):
    lines = warnings_of(tmp_path, optimizer, ZEROS)
    if "lamb" in optimizer or "lars" in optimizer:
        assert any(f"{STAYS} {optimizer}" in line for line in lines), lines
    else:
        assert lines == []


def test_constants_that_do_nothing_are_told(tmp_path):
    def lines(constants):
        plain = (
            "rowwise_adagrad_optimizer { lr: 0.001",
            "rowwise_adagrad_optimizer { " + constants,
        )
        return warnings_of(tmp_path, "rowwise_adagrad_optimizer", plain)

    assert any("max_gradient: has no effect" in line for line in lines("max_gradient: 1 lr: 0.1"))
    assert lines("gradient_clipping: true max_gradient: 1 lr: 0.1") == []
    assert any("weight_decay: has no effect" in line for line in lines("weight_decay: 1 lr: 0.1"))
    assert lines("weight_decay: 1 weight_decay_mode: L2 lr: 0.1") == []
