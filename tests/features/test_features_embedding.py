"""What a feature says about its embedding: every knob changes something."""

import pytest
from features_helpers import feature, id_feature, raw_feature
from torchrec.modules.embedding_configs import (
    DataType,
    EmbeddingBagConfig,
    EmbeddingConfig,
    PoolingType,
)

from tzrec.errors import ConfigError


def test_table():
    table = id_feature().emb_bag_config
    assert isinstance(table, EmbeddingBagConfig)
    assert (table.num_embeddings, table.embedding_dim) == (10, 4)
    assert (table.name, table.feature_names) == ("cat_emb", ["cat"])
    assert (table.pooling, table.data_type) == (PoolingType.SUM, DataType.FP32)
    # TorchRec's own initialiser: uniform within 1 / sqrt(rows).
    assert table.init_fn.keywords == {"a": -(10**-0.5), "b": 10**-0.5}
    assert id_feature().init_fn is None
    assert table.trainable is True
    table = id_feature().emb_config
    assert isinstance(table, EmbeddingConfig)
    assert (table.num_embeddings, table.embedding_dim, table.name) == (10, 4, "cat_emb")


def test_knobs_of_the_table():
    made = id_feature(
        'embedding_name: "shared" pooling: "MEAN" trainable: false data_type: "FP16" '
        'init_fn: "nn.init.constant_,val=1"',
        buckets="hash_bucket_size: 77",
        dim=6,
    )
    for table in (made.emb_bag_config, made.emb_config):
        assert (table.num_embeddings, table.embedding_dim, table.name) == (77, 6, "shared")
        assert (table.data_type, table.trainable) == (DataType.FP16, False)
        assert table.init_fn.keywords == {"val": 1}
    assert made.emb_bag_config.pooling == PoolingType.MEAN
    assert (made.pooling, made.embedding_name, made.trainable) == ("mean", "shared", False)


def test_shared_name_in_a_sequence():
    text = (
        'sequence_feature { sequence_name: "s" sequence_length: 1 sequence_delim: ";" features {'
        'id_feature { feature_name: "cat" expression: "item:cat" embedding_dim: 4 num_buckets: 10 '
        'embedding_name: "cat_emb" } } }'
    )
    assert feature(text).emb_config.name == id_feature().emb_config.name


def test_table_configs_are_fresh():
    made = id_feature()
    made.emb_bag_config.feature_names.append("other")
    assert made.emb_bag_config.feature_names == ["cat"]


def test_unsized_table():
    made = id_feature(buckets="")
    for read in ("num_embeddings", "emb_bag_config", "emb_config"):
        with pytest.raises(
            ConfigError, match=r"IdFeature\[cat\] does not say how many ids"
        ) as error:
            getattr(made, read)
        assert "num_buckets" in error.value.hint


def test_numbers_have_no_table():
    made = raw_feature("value_dim: 3")
    assert (made.emb_bag_config, made.emb_config, made.dense_emb_config) == (None, None, None)
    assert (made.has_embedding, made.num_embeddings, made.output_dim) == (False, 0, 3)


def test_boundaries_make_a_table():
    made = raw_feature("boundaries: [1, 2] embedding_dim: 8")
    assert (made.is_sparse, made.has_embedding, made.output_dim, made.value_dim) == (
        True,
        True,
        8,
        1,
    )
    assert made.emb_bag_config.num_embeddings == 3


def test_dense_embeddings():
    autodis = raw_feature("autodis { num_channels: 5 temperature: 0.5 } embedding_dim: 8")
    assert autodis.dense_emb_config.num_channels == 5
    assert autodis.dense_emb_config.temperature == 0.5
    assert autodis.dense_emb_config.keep_prob == pytest.approx(0.8)
    mlp = raw_feature("mlp {} embedding_dim: 8 value_dim: 3")
    assert type(mlp.dense_emb_config).__name__ == "MLPEmbedding"
    for made in (autodis, mlp):
        assert (made.is_sparse, made.has_embedding, made.output_dim) == (False, True, 8)
        assert made.emb_bag_config is None


def test_dense_embedding_of_a_sequence_is_ignored():
    text = 'sequence_raw_feature { feature_name: "p" expression: "user:p" mlp {} embedding_dim: 8 }'
    made = feature(text)
    assert (made.dense_emb_config, made.has_embedding, made.output_dim) == (None, False, 1)


def test_constraints():
    assert id_feature().embedding_constraints is None
    made = id_feature('embedding_constraints { sharding_types: "row_wise" }')
    assert list(made.embedding_constraints.sharding_types) == ["row_wise"]


def test_weighted_and_mask():
    assert not id_feature().is_weighted
    assert id_feature("weighted: true").is_weighted
    assert not raw_feature().is_weighted
    assert not id_feature().use_mask
    assert raw_feature("use_mask: true").use_mask
