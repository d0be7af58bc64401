# No postponed annotations: TorchScript reads those of the traced module.

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets_fakes import DenseFake, FakeParsed, FixedFake, IdFake
from torch import Tensor, nn
from torchrec.fx import Tracer

from tzrec.datasets.data_parser import DataParser
from tzrec.errors import ConfigError, DataError, FeatureError


def int32(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int32)


def multi_value_sequence() -> FixedFake:
    # row 0: steps (1) (2, 3); row 1: none; row 2: one step (4, 5, 6)
    parsed = FakeParsed("m", np.arange(1, 7), int32(2, 0, 1), int32(1, 2, 3))
    return FixedFake("m", parsed, is_sparse=True, is_sequence=True, value_dim=0)


def dense_sequence() -> FixedFake:
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    parsed = FakeParsed("s", values, int32(2, 0, 1))
    return FixedFake("s", parsed, is_sparse=False, is_sequence=True, value_dim=2)


DATA = {
    "a": pa.array([1, None, 3]),
    "w": pa.array([[1, 2], [], [3]]),
    "d": pa.array([0.5, 1.0, 2.0]),
    "y": pa.array([0, 1, 1], pa.int32()),
    "v": pa.array([1.0, 2.0, 3.0]),
}


def test_parse_keys_and_batch():
    features = [IdFake("a"), DenseFake("d"), multi_value_sequence(), dense_sequence()]
    parser = DataParser(features, labels=["y"], sample_weights=["v"], is_training=True)
    assert parser.input_columns == ["a", "d", "y", "v"]
    parsed = parser.parse(DATA)
    assert sorted(parsed) == [
        "a.lengths", "a.values", "d.values", "m.key_lengths", "m.lengths", "m.values",
        "s.lengths", "s.values", "v", "y",
    ]  # fmt: skip
    batch = parser.to_batch(parsed)
    kjt = batch.sparse_features["__BASE__"]
    assert kjt.keys() == ["a", "m"]
    assert kjt.values().tolist() == [1, 3, 1, 2, 3, 4, 5, 6]
    assert kjt.lengths().tolist() == [1, 0, 1, 3, 0, 3]
    assert kjt.weights_or_none() is None
    multi = batch.sequence_mulval_lengths["__BASE__"]
    assert multi.keys() == ["m"]
    assert multi.values().tolist() == [1, 2, 3]
    assert multi.lengths().tolist() == [2, 0, 1]
    dense = batch.dense_features["__BASE__"]
    assert dense.to_dict()["d"].tolist() == [[0.5], [1.0], [2.0]]
    steps = batch.sequence_dense_features["s"]
    assert steps.values().tolist() == [[0, 1], [2, 3], [4, 5]]
    assert steps.lengths().tolist() == [2, 0, 1]
    assert batch.labels["y"].dtype == torch.int64
    assert batch.sample_weights["v"].tolist() == [1, 2, 3]
    assert batch.sample_weights["v"].dtype == torch.float32
    assert batch.checkpoint_info is None


def test_to_dict_gives_the_parsed_tensors_back():
    features = [IdFake("a"), IdFake("w"), DenseFake("d"), multi_value_sequence(), dense_sequence()]
    parser = DataParser(features, labels=["y"], sample_weights=["v"])
    parsed = parser.parse(DATA)
    again = parser.to_batch(parsed).to_dict()
    assert again.keys() == parsed.keys()
    for key, tensor in parsed.items():
        assert again[key].tolist() == tensor.tolist(), key


def test_one_weighted_feature_gives_the_others_ones():
    parser = DataParser([IdFake("a"), IdFake("w", is_weighted=True)])
    parsed = parser.parse(DATA)
    assert "a.weights" not in parsed
    kjt = parser.to_batch(parsed).sparse_features["__BASE__"]
    assert kjt.weights().tolist() == [1, 1, 2, 2, 2]


def test_data_groups_are_kept_apart_or_forced_together():
    features = [IdFake("a"), IdFake("w", data_group="__NEG__"), DenseFake("d")]
    data = {**DATA, "w": pa.array([[1], [2], [3], [4, 5]]), "d": pa.array([1.0, 2.0])}
    apart = DataParser(features)
    batch = apart.to_batch(apart.parse(data))
    assert sorted(batch.sparse_features) == ["__BASE__", "__NEG__"]
    assert batch.sparse_features["__NEG__"].lengths().tolist() == [1, 1, 1, 2]
    together = DataParser(features, force_base_data_group=True)
    batch = together.to_batch(together.parse(data))
    assert list(batch.sparse_features) == ["__BASE__"]
    kjt = batch.sparse_features["__BASE__"]
    assert kjt.lengths().tolist() == [1, 0, 1, 0, 1, 1, 1, 2]
    assert batch.dense_features["__BASE__"].values().tolist() == [[1], [2], [0], [0]]


@pytest.mark.parametrize("ids", [[5, 0, 2], [-1, 0, 2]])
def test_ids_outside_the_table(ids):
    parser = DataParser([IdFake("a", num_embeddings=5)])
    bad = next(i for i in ids if not 0 <= i < 5)
    data = {"a": pa.array([[0, 1], [], ids])}
    with pytest.raises(DataError, match=rf"'a': id {bad} in row 2 .* outside 0 … 4"):
        parser.parse(data)
    assert parser.parse({"a": pa.array([[4], [0]])})["a.values"].tolist() == [4, 0]


def test_ids_outside_the_table_of_a_multi_value_sequence():
    feature = multi_value_sequence()
    feature.num_embeddings = 6
    with pytest.raises(DataError, match="id 6 in row 2 "):
        DataParser([feature]).parse(DATA)


@pytest.mark.parametrize(
    ("column", "dtype", "values"),
    [
        (pa.array([1, 0], pa.int32()), torch.int64, [1, 0]),
        (pa.array([1, 0], pa.int64()), torch.int64, [1, 0]),
        (pa.array([0.5, 0.0], pa.float32()), torch.float32, [0.5, 0.0]),
        (pa.array([0.5, 0.0], pa.float64()), torch.float32, [0.5, 0.0]),
    ],
)
def test_scalar_labels(column, dtype, values):
    parser = DataParser([], labels=["y"])
    label = parser.to_batch(parser.parse({"y": column})).labels["y"]
    assert label.dtype == dtype
    assert label.tolist() == values


@pytest.mark.parametrize(
    ("item", "dtype"), [(pa.int32(), torch.int64), (pa.float64(), torch.float32)]
)
def test_list_labels_are_jagged(item, dtype):
    parser = DataParser([], labels=["y"])
    column = pa.array([[9], [1, 2], [], [3]], pa.list_(item)).slice(1)
    parsed = parser.parse({"y": column})
    assert sorted(parsed) == ["y.lengths", "y.values"]
    label = parser.to_batch(parsed).jagged_labels["y"]
    assert label.values().dtype == dtype
    assert label.values().tolist() == [1, 2, 3]
    assert label.lengths().tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array(["1"]), "label column 'y' is string"),
        (pa.array([["1"]]), "label column 'y' is string"),
        (pa.array([1, None]), "label 'y' is null in row 1"),
        (pa.array([[1], None]), "label 'y' is null in row 1"),
        (pa.array([[1, None]]), "element of label 'y' is null"),
    ],
)
def test_labels_that_are_none(column, message):
    with pytest.raises(DataError, match=message):
        DataParser([], labels=["y"]).parse({"y": column})


@pytest.mark.parametrize(
    ("column", "message"),
    [(pa.array([1, 2]), "weight is float or double"), (pa.array([1.0, None]), "null in row 1")],
)
def test_sample_weights_are_floats(column, message):
    with pytest.raises(DataError, match=message):
        DataParser([], sample_weights=["v"]).parse({"v": column})


@pytest.mark.parametrize("kind", ["feature", "label", "weight"])
def test_missing_columns(kind):
    features = [IdFake("wa")] if kind == "feature" else []
    labels = ["wa"] if kind == "label" else None
    weights = ["wa"] if kind == "weight" else None
    with pytest.raises(DataError, match=r"column 'wa' is missing; did you mean 'w'|is missing"):
        DataParser(features, labels, weights).parse(DATA)


def test_a_feature_twice():
    with pytest.raises(ConfigError, match="same name: a"):
        DataParser([IdFake("a"), IdFake("a")])


def test_feature_errors_pass():
    with pytest.raises(FeatureError, match="cannot read int64"):
        DataParser([DenseFake("a")]).parse(DATA)


class Reader(nn.Module):
    def __init__(self, parser: DataParser) -> None:
        super().__init__()
        self.parser = parser

    def forward(self, data: dict[str, Tensor]) -> list[Tensor]:
        batch = self.parser.to_batch(data)
        kjt = batch.sparse_features["__BASE__"]
        return [
            kjt.values(),
            kjt.lengths(),
            kjt.weights(),
            batch.dense_features["__BASE__"].values(),
            batch.sequence_mulval_lengths["__BASE__"].lengths(),
            batch.sequence_dense_features["s"].values(),
        ]


def test_to_batch_is_traced_and_scripted():
    features = [
        IdFake("a"),
        IdFake("w", is_weighted=True),
        DenseFake("d"),
        multi_value_sequence(),
        dense_sequence(),
    ]
    parser = DataParser(features)
    module = Reader(parser)
    graph = torch.fx.GraphModule(module, Tracer().trace(module))
    scripted = torch.jit.script(graph)
    parsed = parser.parse(DATA)
    shorter = parser.parse({name: column.slice(0, 3) for name, column in DATA.items()})
    for data in (parsed, shorter):
        for got, expected in zip(scripted(data), module(data), strict=True):
            assert torch.equal(got, expected)


def test_arrow_memory_is_not_shared():
    class ZeroCopy(IdFake):
        def parse(self, input_data, is_training=False):
            values = input_data["a"].to_numpy()
            assert not values.flags.writeable
            return FakeParsed("a", values, np.ones(len(values), dtype=np.int32))

    column = pa.array([1, 2, 3])
    parsed = DataParser([ZeroCopy("a")]).parse({"a": column})
    parsed["a.values"].zero_()
    assert column.to_pylist() == [1, 2, 3]
