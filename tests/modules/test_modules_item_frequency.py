"""Streaming frequencies against counts."""

import numpy as np
import pytest
import torch

from tzrec.modules.item_frequency import ItemFrequency


def stream(module, ids, batch_size):
    for start in range(0, len(ids), batch_size):
        module.update(torch.from_numpy(ids[start : start + batch_size]))


def zipf(num_rows, num_items, seed=0):
    probability = 1 / np.arange(1, num_items + 1)
    probability /= probability.sum()
    return np.random.default_rng(seed).choice(num_items, num_rows, p=probability), probability


@pytest.mark.parametrize("batch_size", [16, 1024])
def test_estimates_the_frequencies(batch_size):
    """From items in every batch, several times, to those in one of a hundred."""
    ids, probability = zipf(60_000, 50)
    module = ItemFrequency(50, decay=0.001)
    stream(module, ids, batch_size)
    found = module.log_probability(torch.arange(50)).exp().numpy()
    np.testing.assert_allclose(found, probability, rtol=0.2)


def test_the_first_gaps_count_alike():
    """Until the moving mean takes over, the estimate is rows / occurrences."""
    module = ItemFrequency(4, decay=1e-9)
    for batch in ([0, 0, 1, 0], [1, 0, 2, 2], [0, 0, 0, 0]):
        module.update(torch.tensor(batch))
    # Up to the row of its latest batch: item 0 has 8 of 12 rows, item 1 has 2 of 8, item 2 too.
    found = module.log_probability(torch.tensor([0, 1, 2, 3])).exp()
    np.testing.assert_allclose(found, [8 / 12, 2 / 8, 2 / 8, 1 / 12], rtol=1e-5)


def test_old_gaps_fade():
    """Item 0 is in every row first, then in every fourth."""
    ids = np.concatenate([np.zeros(1000, np.int64), np.tile([0, 1, 2, 3], 1000)])
    found = {}
    for decay in (0.1, 1e-9):
        module = ItemFrequency(4, decay=decay)
        stream(module, ids, 4)
        found[decay] = float(module.log_probability(torch.tensor([0])).exp())
    assert found[0.1] == pytest.approx(0.25, rel=0.01)
    assert found[1e-9] == pytest.approx(2000 / 5000, rel=0.01)


def test_hashed_entries_still_tell_most_items_apart():
    ids, _probability = zipf(100_000, 1000)
    exact, hashed = ItemFrequency(1000), ItemFrequency(0, num_entries=1 << 12)
    assert exact.gap.shape == (1, 1000)
    assert hashed.gap.shape == (2, 1 << 12)
    for module in (exact, hashed):
        stream(module, ids, 256)
    head = torch.arange(100)
    a, b = exact.log_probability(head), hashed.log_probability(head)
    assert (a - b).abs().median() == 0
    assert float((a - b).abs().max()) < 1.5


def test_large_and_unknown_ids():
    module = ItemFrequency(0, num_entries=7)
    module.update(torch.tensor([2**62, -1, 5]))
    assert int(module.num_rows) == 3
    assert torch.isfinite(module.log_probability(torch.tensor([2**62, -1, 17]))).all()


@pytest.mark.parametrize("num_ids", [5, 0])
def test_an_unknown_item_is_one_that_never_came(num_ids):
    module = ItemFrequency(num_ids, num_entries=64)
    module.update(torch.tensor([0, 0, 0, -1, -1, 0]))
    found = module.log_probability(torch.tensor([0, -1]))
    torch.testing.assert_close(found, torch.tensor([4 / 6, 1 / 6]).log())


def test_an_empty_stream():
    module = ItemFrequency(3)
    assert module.log_probability(torch.tensor([0, 1])).tolist() == [0.0, 0.0]
    module.update(torch.tensor([], dtype=torch.int64))
    assert module.log_probability(torch.tensor([2])).tolist() == [0.0]


def test_a_resumed_stream_goes_on():
    ids, _ = zipf(4000, 30)
    whole, first = ItemFrequency(30), ItemFrequency(30)
    stream(whole, ids, 100)
    stream(first, ids[:1500], 100)
    second = ItemFrequency(30)
    second.load_state_dict(first.state_dict())
    stream(second, ids[1500:], 100)
    every = torch.arange(30)
    assert torch.equal(whole.log_probability(every), second.log_probability(every))
