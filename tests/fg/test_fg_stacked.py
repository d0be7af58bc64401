"""Features that are made together are those that each handler of one feature makes."""

import numpy as np
import pyarrow as pa
import pytest

from tzrec.errors import FeatureError
from tzrec.fg import FgHandler, stacked
from tzrec.fg.kernels import backend

SIZES = (0, 1, 2, 40)
WORDS = ["a", "b", "item7", "12", "-3", "", None, "a\x1db", "1\x1d2\x1d3", "x|y", "long" * 30, "é"]
NUMBERS = ["1", "2.5", "-7", "1e3", None, "", "30"]


def id_of(i, **options):
    return {
        "feature_type": "id_feature",
        "feature_name": f"id{i}",
        "expression": f"{('user', 'item', 'context')[i % 3]}:c{i}",
        **options,
    }


def raw_of(i, **options):
    name, column = f"raw{i}", f"item:n{i}"
    return {"feature_type": "raw_feature", "feature_name": name, "expression": column, **options}


GROUPS = {
    "hashed": [id_of(i, hash_bucket_size=10**i + 1) for i in range(5)],
    "hashed, defaults": [
        id_of(i, hash_bucket_size=99 + i, default_value=default)
        for i, default in enumerate(["", "a", "a\x1db", "7"])
    ],
    "hashed, first values": [id_of(i, hash_bucket_size=50, value_dim=i % 3) for i in range(5)],
    "hashed, prefix": [id_of(i, hash_bucket_size=50, need_prefix=True) for i in range(3)],
    "hashed, separators": [
        id_of(i, hash_bucket_size=50, separator="|\x1d"[i % 2]) for i in range(4)
    ],
    "words": [id_of(i, vocab_list=[*WORDS[:i], "z"], default_value="a") for i in range(1, 4)],
    "text": [id_of(i, stub_type=i < 1) for i in range(3)],
    "numbers": [raw_of(i) for i in range(4)],
    "numbers, defaults": [raw_of(i, default_value=str(i / 4)) for i in range(4)],
    "log10": [raw_of(i, normalizer="method=log10,threshold=0.05,default=-5") for i in range(4)],
    "zscore": [
        raw_of(i, normalizer=f"method=zscore,mean={i // 2},standard_deviation=3") for i in range(4)
    ],
    "boundaries": [raw_of(i, boundaries=[0.5 * i, 3, 5]) for i in range(3)],
}


def text_column(rng, size, words):
    return pa.array([words[i] for i in rng.integers(0, len(words), size)], pa.string())


def columns_of(seed, size, kind):
    """Columns c0… of text or numbers, and n0… of numbers, with more or less missing."""
    rng = np.random.default_rng(seed)
    columns = {}
    for i in range(5):
        words = [WORDS[:5], WORDS[:7], WORDS][int(rng.integers(0, 3))]
        numbers = rng.normal(0, 9, size)
        missing = rng.random(size) < rng.choice([0, 0, 0.3, 1])
        if kind == "text":
            c = text_column(rng, size, words)
            n = text_column(rng, size, NUMBERS)
        else:
            c = pa.array(numbers.astype(np.int64), kind, mask=missing)
            n = pa.array(numbers.round(int(rng.integers(0, 3))), mask=missing).cast(
                kind, safe=False
            )
        columns |= {f"c{i}": c, f"n{i}": n}
    return columns


def assert_same(found, alone):
    assert type(found) is type(alone)
    for part in ("values", "lengths", "weights", "key_lengths"):
        one, other = getattr(found, part), getattr(alone, part)
        if hasattr(other, "to_binary"):
            one, other = (text.to_binary().to_pylist() for text in (one, other))
            assert one == other
        elif other is None:
            assert one is None
        else:
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one.view(np.uint8), other.view(np.uint8), strict=True)
    assert found.counts == alone.counts


@pytest.mark.parametrize("farm", [False, True])
@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("kind", ["text", pa.int64(), pa.int32(), pa.float32(), pa.float64()])
def test_together_as_alone(name, kind, farm):
    features = GROUPS[name]
    together = FgHandler({"features": features}, farm_hash=farm)
    handlers = [FgHandler({"features": [feature]}, farm_hash=farm) for feature in features]
    for handler in [together, *handlers]:
        for operator in handler.operators:
            operator.tail.counts = farm
    used = 0
    for seed in range(4):
        for size in SIZES:
            columns = columns_of(seed, size, kind)
            used += len(together._stacks.generate(columns))
            found = together.process_arrow(columns)
            for handler in handlers:
                assert not handler._stacks.generate(columns)
                for feature, alone in handler.process_arrow(columns).items():
                    assert_same(found[feature], alone)
    assert used > 0


def test_plain_kernels():
    features = GROUPS["hashed"] + GROUPS["numbers"]
    columns = columns_of(1, 40, "text")
    fast = FgHandler({"features": features}).process_arrow(columns)
    with backend("numpy"):
        slow = FgHandler({"features": features}).process_arrow(columns)
    for name, found in fast.items():
        assert_same(found, slow[name])


def test_one_row_for_all_and_slices():
    """Columns of different lengths, types and offsets are stacked apart."""
    columns = columns_of(3, 40, "text")
    columns["c1"] = columns["c1"].slice(7, 20)
    columns["c2"] = columns["c2"].slice(11, 20)
    columns["c3"], columns["c4"] = pa.array(["a"]), pa.array([4])
    columns["c0"] = columns["c0"].slice(0, 20).cast(pa.large_string())
    features = GROUPS["hashed"]
    handler = FgHandler({"features": features})
    assert set(handler._stacks.generate(columns)) == {"id1", "id2"}
    found = handler.process_arrow(columns)
    for feature in features:
        name = feature["feature_name"]
        assert_same(found[name], FgHandler({"features": [feature]}).process_arrow(columns)[name])


def test_large_batches_and_masks_go_alone(monkeypatch):
    handler = FgHandler({"features": GROUPS["hashed"]})
    columns = columns_of(0, 40, "text")
    assert handler._stacks.generate(columns)
    masks = {"id1": np.arange(40) % 2 == 0}
    found = handler.process_arrow(columns, masks)["id1"]
    assert_same(
        found, FgHandler({"features": [GROUPS["hashed"][1]]}).process_arrow(columns, masks)["id1"]
    )
    monkeypatch.setattr(stacked, "MOST_ROWS", 39)
    assert not handler._stacks.generate(columns)


def test_other_features_read_them():
    """A feature made together is the input of another one."""
    combo = {
        "feature_type": "combo_feature",
        "feature_name": "both",
        "expression": ["feature:id0", "feature:id1"],
        "hash_bucket_size": 1000,
    }
    stubs = [id_of(i, stub_type=True) for i in range(2)]
    columns = columns_of(0, 40, "text")
    handler = FgHandler({"features": [*stubs, combo]})
    assert set(handler._stacks.generate(columns)) == {"id0", "id1"}
    found = handler.process_arrow(columns)
    assert list(found) == ["both"]
    direct = dict(combo, expression=["user:c0", "item:c1"])
    assert_same(found["both"], FgHandler({"features": [direct]}).process_arrow(columns)["both"])


def test_what_is_wrong_names_its_feature_and_row():
    features = [raw_of(i) for i in range(3)]
    columns = {f"n{i}": pa.array(["1", "2"]) for i in range(3)}
    columns["n1"] = pa.array(["1", "two"])
    with pytest.raises(FeatureError, match=r"feature raw1 of n1.*'two' in row 1") as caught:
        FgHandler({"features": features}).process_arrow(columns)
    assert "raw0" not in str(caught.value)
