"""Missing and unknown values of generated features, counted while a pass is read."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf import text_format

from tzrec.constant import Mode
from tzrec.datasets.dataset import create_dataloader
from tzrec.datasets.feature_counts import FeatureCounts
from tzrec.features.feature import FgMode, create_features
from tzrec.protos.data_pb2 import DataConfig
from tzrec.protos.feature_pb2 import FeatureConfig

FEATURES = [
    'id_feature { feature_name: "word" expression: "user:word" embedding_dim: 4 '
    'vocab_list: "a" vocab_list: "b" }',
    'raw_feature { feature_name: "price" expression: "item:price" }',
]


@pytest.mark.parametrize("loader", ["THREAD", "PROCESS"])
def test_shares_of_a_pass(tmp_path, loader):
    words = ["a", "x", None, "b\x1dy", ""] * 20
    prices = [1.0, None, 2.0, None, 3.0] * 20
    path = str(tmp_path / "a.parquet")
    pq.write_table(pa.table({"word": words, "price": prices, "label": [0, 1] * 50}), path)
    config = text_format.Parse(
        f"dataset_type: ParquetDataset batch_size: 16 fg_mode: FG_DAG num_workers: 1 "
        f'label_fields: "label" loader: {loader}',
        DataConfig(),
    )
    features = create_features(
        [text_format.Parse(text, FeatureConfig()) for text in FEATURES], FgMode.FG_DAG
    )
    made = create_dataloader(config, features, path, mode=Mode.TRAIN)
    assert made.feature_counts.shares() == []
    rows = sum(batch.labels["label"].shape[0] for batch in made)
    made.close()
    word, price = made.feature_counts.shares()
    assert rows == 100
    # Two of five words are missing; of the four values a, x, b, y two are unknown.
    assert (word.name, word.missing, word.unknown) == ("word", 0.4, 0.5)
    assert (price.name, price.missing, price.unknown) == ("price", 0.4, 0.0)
    assert made.feature_counts.lines() == [
        "word: 40.0% missing, 50.0% unknown",
        "price: 40.0% missing, 0.0% unknown",
    ]


def test_only_the_worst_are_listed():
    import torch

    counts = FeatureCounts([f"f{i}" for i in range(4)])
    counts.add(torch.tensor([[10, i, 10, 10, 0] for i in range(4)]))
    assert counts.lines(most=2) == [
        "f3: 30.0% missing, 0.0% unknown",
        "f2: 20.0% missing, 0.0% unknown",
        "and 1 more (tzrec fg CONFIG --stats DATA)",
    ]
