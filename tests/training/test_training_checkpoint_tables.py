"""Tables whose rows stand for something else than in the checkpoint: refused, remapped, reset."""

import json

import numpy as np
import pytest
import torch
from checkpoint_models import WEIGHT, States, Tables, snapshot
from torchrec.modules.embedding_configs import DataType

from tzrec.errors import CheckpointError
from tzrec.training.checkpoint.restore import open_checkpoint, restore_model
from tzrec.training.checkpoint.save import save_checkpoint

LIST = {"vocab_list": ["a", "b", "c"]}  # ids: default 0, other words 1, a 2, b 3, c 4
AFRESH = -1.0


def _words(*words, **more):
    return {"vocab_list": list(words), **more}


def _saved(tmp_path, *fields, **kwargs):
    model = Tables(*fields, **kwargs).fill()
    return save_checkpoint(tmp_path, snapshot(3, model, States(model, 10.0)))


def _restored(checkpoint, on_mismatch, *fields, **kwargs):
    """Returns the row in the checkpoint of each row after the restore, -1 = it starts afresh."""
    model = Tables(*fields, **kwargs)
    model.rows.fill_(AFRESH + 0.25)
    optimizer = States(model)
    with open_checkpoint(model, checkpoint, on_mismatch=on_mismatch) as restorer:
        report = restorer.weights()
        states = restorer.optimizer(optimizer)
    rows = model.rows[:, 0] - 0.25
    # Optimizer states go where the weights go.
    expected = torch.where(rows < 0, 0.0, rows + 10.0)
    assert torch.equal(optimizer.table["t.momentum1"], expected[:, None].expand_as(model.rows))
    assert torch.equal(optimizer.table["t.row"], expected)
    assert torch.equal(optimizer.head["exp_avg"], torch.full((1, 2), 10.0))
    return rows.int().tolist(), report, states, optimizer


# What a config had, what it has, how the difference is told, and where rows come from.
CHANGES = {
    "words added and removed": (
        LIST,
        _words("x", "a", "b", "y"),
        "vocab_list: 2 words added (x, y), 1 removed (c)",
        [0, 1, -1, 2, 3, -1],
    ),
    "one word more": (LIST, _words("a", "b", "c", "d"), "1 word added (d)", [0, 1, 2, 3, 4, -1]),
    "another order": (
        LIST,
        _words("c", "a", "b"),
        "vocab_list: the same words with other ids (c 4 → 2, a 2 → 3, b 3 → 4)",
        [0, 1, 4, 2, 3],
    ),
    "other words have another id": (
        _words("a", "b", default_bucketize_value=0),
        _words("a", "b", default_bucketize_value=1),
        "id of other words 0 → 1",
        [0, 1],
    ),
    "list to dictionary": (
        LIST,
        {"vocab_dict": {"a": 4, "c": 2}},
        "vocab_list → vocab_dict; vocab_dict: 1 word removed (b)",
        [0, 1, 4, -1, 2],
    ),
    "another default value": (
        LIST,
        _words("a", "b", "c", default_value="none"),
        "default value '' → 'none'",
        [0, 1, 2, 3, 4],
    ),
    "more rows beside the vocabulary": (
        {"num_buckets": 6, **LIST},
        {"num_buckets": 8, **LIST},
        "rows 6 → 8",
        [0, 1, 2, 3, 4, -1, -1, -1],
    ),
    "more buckets": (
        {"num_buckets": 3},
        {"num_buckets": 5},
        "num_buckets 3 → 5",
        [0, 1, 2, -1, -1],
    ),
    "fewer buckets": ({"num_buckets": 5}, {"num_buckets": 3}, "num_buckets 5 → 3", [0, 1, 2]),
    "boundaries": (
        {"boundaries": [1.0, 2.0, 3.0], "embedding_dim": 2},
        {"boundaries": [0.5, 1.0, 2.0], "embedding_dim": 2},
        "boundaries: 1 added (0.5), 1 removed (3)",
        [-1, -1, 1, -1],
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_changed_table_is_refused_with_the_difference(tmp_path, case):
    before, after, text, _ = CHANGES[case]
    path = _saved(tmp_path, before)
    for on_mismatch in (None, "strict"):
        with pytest.raises(CheckpointError) as caught:
            _restored(path, on_mismatch, after)
        assert f"not as they were in {path}: table t (f0): " in str(caught.value)
        assert text in str(caught.value)
    assert "--on_mismatch remap" in caught.value.hint


@pytest.mark.parametrize("case", CHANGES)
def test_a_changed_table_is_remapped(tmp_path, case):
    before, after, _, sources = CHANGES[case]
    rows, report, states, optimizer = _restored(_saved(tmp_path, before), "remap", after)
    assert rows == sources
    kept = sum(source >= 0 for source in sources)
    text = f"{kept} of {len(sources)} rows kept, {len(sources) - kept} start afresh"
    assert report.resized == {WEIGHT: text}
    assert len(states.resized) == 2
    assert optimizer.table["t.step"] == 10  # of the table, not of a row
    assert not report.exact


@pytest.mark.parametrize("case", CHANGES)
def test_a_changed_table_starts_afresh(tmp_path, case):
    before, after, _, sources = CHANGES[case]
    rows, report, states, optimizer = _restored(_saved(tmp_path, before), "reset", after)
    assert rows == [-1] * len(sources)
    assert report.resized == {WEIGHT: "starts afresh"}
    assert len(states.resized) == 3
    assert optimizer.table["t.step"] == 0


@pytest.mark.parametrize(
    ("before", "after", "difference", "obstacle"),
    [
        (
            {"hash_bucket_size": 4},
            {"hash_bucket_size": 6},
            "hash_bucket_size 4 → 6",
            "rows of a hash table belong to no single value",
        ),
        (
            {"hash_bucket_size": 5},
            LIST,
            "hash_bucket_size (5) → vocab_list (3 words)",
            "hash table",
        ),
        ({"num_buckets": 5}, LIST, "num_buckets (5) → vocab_list (3 words)", "nothing in common"),
    ],
)
def test_what_cannot_be_remapped_is_said(tmp_path, before, after, difference, obstacle):
    path = _saved(tmp_path, before)
    for on_mismatch in ("strict", "remap"):
        with pytest.raises(CheckpointError) as caught:
            _restored(path, on_mismatch, after)
        assert difference in str(caught.value)
        assert "--on_mismatch reset" in caught.value.hint
        assert "--on_mismatch remap" not in caught.value.hint
    assert obstacle in str(caught.value)
    assert set(_restored(path, "reset", after)[0]) == {-1}


def test_another_dimension_only_starts_afresh(tmp_path):
    path = _saved(tmp_path, LIST)
    with pytest.raises(CheckpointError, match=r"embedding_dim 2 → 4 \(no remap: the rows have"):
        _restored(path, "remap", LIST, dim=4)
    assert set(_restored(path, "reset", LIST, dim=4)[0]) == {-1}


def test_another_type_is_converted_on_demand(tmp_path):
    path = _saved(tmp_path, LIST)
    with pytest.raises(CheckpointError, match="data_type FP32 → FP16"):
        _restored(path, "strict", LIST, data_type=DataType.FP16)
    assert _restored(path, "remap", LIST, data_type=DataType.FP16)[0] == [0, 1, 2, 3, 4]


def test_an_unchanged_table_needs_no_choice(tmp_path):
    path = _saved(tmp_path, LIST)
    for on_mismatch in (None, "strict", "remap", "reset"):
        rows, report, _, _ = _restored(path, on_mismatch, LIST)
        assert rows == [0, 1, 2, 3, 4]
        assert report.exact


def test_features_that_share_a_table_are_told_apart(tmp_path):
    path = _saved(tmp_path, LIST, {"num_buckets": 5})
    assert _restored(path, "strict", LIST, {"num_buckets": 5})[0] == [0, 1, 2, 3, 4]
    with pytest.raises(CheckpointError, match=r"vocab_list: 1 word added \(d\), 1 removed \(c\)"):
        _restored(path, "strict", _words("a", "b", "d"), {"num_buckets": 5})
    with pytest.raises(CheckpointError, match="features with different ids share the table"):
        _restored(path, "remap", _words("a", "b", "d"), {"num_buckets": 5})


def test_a_vocabulary_file_counts_by_its_words(tmp_path):
    (tmp_path / "words").write_text("a\nb\nc\n")
    field = {"vocab_file": str(tmp_path / "words"), "default_bucketize_value": 0}
    path = _saved(tmp_path, field)
    (tmp_path / "words").write_text("a\nc\nb\n")
    with pytest.raises(CheckpointError, match="vocab_file: the same words with other ids"):
        _restored(path, "strict", field)
    assert _restored(path, "remap", field)[0] == [0, 2, 1]


def test_an_evaluation_has_no_choice(tmp_path):
    path = _saved(tmp_path, LIST)
    with pytest.raises(CheckpointError) as caught:
        restore_model(Tables(_words("a", "b")), path)
    assert "--on_mismatch" not in caught.value.hint
    assert "the config and the vocabularies" in caught.value.hint


def test_vocabularies_are_stored_once(tmp_path):
    path = _saved(tmp_path, LIST, LIST)
    (stored,) = (path / "vocabularies").iterdir()
    assert json.loads(stored.read_text()) == {"": 0, "<OOV>": 1, "a": 2, "b": 3, "c": 4}
    (table,) = json.loads((path / "manifest.json").read_text())["tables"].values()
    assert table["features"] == ["f0", "f1"]
    (ids,) = table["ids"]
    assert (ids["kind"], ids["words"], ids["fingerprint"]) == ("vocab_list", 3, stored.stem)
    # The next checkpoint of the run shares the file, and has it when this one is removed.
    model = Tables(LIST)
    second = save_checkpoint(tmp_path, snapshot(4, model)) / "vocabularies" / stored.name
    assert second.stat().st_ino == stored.stat().st_ino


def test_a_checkpoint_that_knows_no_ids_is_compared_by_shape(tmp_path):
    path = _saved(tmp_path, LIST)
    (path / "manifest.json").unlink()
    (path / "trainer_state.pt").unlink()  # as other programs write it
    assert _restored(path, "strict", {"num_buckets": 5})[0] == [0, 1, 2, 3, 4]
    with pytest.raises(CheckpointError, match=r"\[5, 2\] in the checkpoint, \[6, 2\] in the model"):
        _restored(path, "strict", {"num_buckets": 6})
    with pytest.raises(CheckpointError, match="does not say what its rows stand for"):
        _restored(path, "remap", {"num_buckets": 6})
    assert set(_restored(path, "reset", {"num_buckets": 6})[0]) == {-1}


@pytest.mark.parametrize("seed", range(20))
def test_remapped_rows_are_those_of_the_words(tmp_path, seed):
    """Oracle: look every word up in both bucketisers."""
    rng = np.random.default_rng(seed)
    every = [f"w{i}" for i in range(30)]
    before = _words(*rng.permutation(every)[: rng.integers(1, 25)].tolist())
    after = _words(*rng.permutation(every)[: rng.integers(1, 25)].tolist())
    if set(before["vocab_list"]) == set(after["vocab_list"]):
        return
    rows = _restored(_saved(tmp_path, before), "remap", after)[0]
    for index, word in enumerate(after["vocab_list"]):
        known = word in before["vocab_list"]
        assert rows[2 + index] == (2 + before["vocab_list"].index(word) if known else -1)
    assert rows[:2] == [0, 1]
