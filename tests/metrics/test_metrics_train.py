"""Decayed train metrics: window by window, and through a restart."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from tzrec.errors import ConfigError
from tzrec.metrics.auc import AUC
from tzrec.metrics.decay_auc import DecayAUC
from tzrec.metrics.regression import MeanAbsoluteError
from tzrec.metrics.train_metric_wrapper import TrainMetricWrapper
from tzrec.metrics.xauc import XAUC

RNG = np.random.default_rng(0)


def _mae(**decay):
    return TrainMetricWrapper(MeanAbsoluteError(local=True), **decay)


def test_value_is_blended_every_decay_step():
    metric = _mae(decay_rate=0.8, decay_step=2)
    seen = []
    for error in (1.0, 3.0, 10.0, 20.0, 5.0):
        metric.update(torch.tensor([error]), torch.tensor([0.0]))
        seen.append(float(metric.compute()))
    # Windows (1, 3) and (10, 20): first 2, then 0.8 * 2 + 0.2 * 15.
    assert seen == pytest.approx([0, 2, 2, 4.6, 4.6])
    metric.reset()
    assert float(metric.compute()) == 0


def test_decay_auc_blends_counts():
    batches = []
    for _ in range(4):
        labels = RNG.integers(0, 2, 300)
        batches.append((((labels + RNG.normal(size=300)) / 9 + 0.4).clip(0, 1), labels))
    metric = DecayAUC(200, decay_rate=0.7, decay_step=2)
    seen = []
    for scores, labels in batches:
        metric.update(torch.from_numpy(scores), torch.from_numpy(labels))
        seen.append(float(metric.compute()))
    bins = np.concatenate([(scores.astype(np.float32) * 199) // 1 for scores, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    first = roc_auc_score(labels[:600], bins[:600])
    weights = np.repeat([0.7, 0.3], 600)
    second = roc_auc_score(labels, bins, sample_weight=weights)
    assert seen == pytest.approx([0, first, first, second], abs=1e-9)
    whole = AUC(200)
    whole.update(*(torch.from_numpy(np.concatenate(c)) for c in zip(*batches, strict=True)))
    assert seen[-1] != float(whole.compute())


@pytest.mark.parametrize(
    "make",
    [
        lambda: DecayAUC(50, decay_rate=0.5, decay_step=3),
        lambda: _mae(decay_step=3),
        lambda: TrainMetricWrapper(XAUC(local=True), decay_step=3),
    ],
)
@pytest.mark.parametrize("stop_after", [0, 2, 3, 5])
def test_state_goes_on_where_it_stopped(make, stop_after, tmp_path):
    def batch(i):
        generator = torch.Generator().manual_seed(i)
        return torch.rand(64, generator=generator), torch.rand(64, generator=generator).round()

    whole, part = make(), make()
    for i in range(stop_after):
        whole.update(*batch(i))
        part.update(*batch(i))
    torch.save(part.state(), tmp_path / "state.pt")
    resumed = make()
    resumed.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    for i in range(stop_after, 9):
        whole.update(*batch(i))
        resumed.update(*batch(i))
        assert float(whole.compute()) == float(resumed.compute())


def test_saved_state_does_not_change_with_the_metric():
    metric = TrainMetricWrapper(XAUC(local=True), decay_step=9)
    metric.update(torch.rand(4), torch.rand(4))
    state = metric.state()
    metric.update(torch.rand(4), torch.rand(4))
    assert len(state["metric"]["preds"]) == 1


@pytest.mark.parametrize("decay", [{"decay_rate": 1.0}, {"decay_rate": -0.1}, {"decay_step": 0}])
def test_knobs_out_of_range(decay):
    with pytest.raises(ConfigError, match="must be"):
        _mae(**decay)
