"""Wrapped models of `deploy_jobs` with batches for them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from deploy_jobs import make_rows, write_config

from tzrec.config import prepare
from tzrec.datasets.data_parser import DataParser
from tzrec.deploy.torchscript import inference_mode_of
from tzrec.models.wrappers import ScriptWrapper
from tzrec.training.build import build_features, build_model

# A model with an encoder inside a DEEP group beside its other features.
ENCODED = 'feature_names: ["user_id", "item_id", "price", "age"]'
# Sequences that stay jagged, and a history that only a transformer reads.
JAGGED = """
feature_groups { group_name: "user" group_type: DEEP feature_names: ["user_id", "age"] }
feature_groups { group_name: "item" group_type: DEEP feature_names: ["item_id"] }
feature_groups { group_name: "hist" group_type: JAGGED_SEQUENCE
    feature_names: ["click__item_id", "click__price"] }
"""


def build(root, name, *, input_tile=0):
    """Returns (wrapper in eval mode, features, config) of a model with random weights."""
    pq.write_table(make_rows(40), root / "train.parquet")
    path = write_config(root / f"{name}.config", name, data=root / "train.parquet")
    config = prepare(path).config
    features = build_features(config.data_config, config.feature_configs)
    torch.manual_seed(3)
    model = build_model(config, features)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return ScriptWrapper(model, input_tile=input_tile).eval(), features, config


def parse(features, rows):
    """Returns the parse keys of a table."""
    parser = DataParser(features)
    return parser.parse({n: rows[n].combine_chunks() for n in parser.input_columns})


def batches(features):
    """Parse keys of batches of all shapes, by name."""
    long = make_rows(3, seed=9)
    histories = {"click__item_id": "7;8;9;1;2;3;4;5;6", "click__price": "1;2;3;4;5;6;7;8;9"}
    for name, text in histories.items():
        place = long.schema.get_field_index(name)
        long = long.set_column(place, name, pa.array([text, None, text]))
    return {
        "many": parse(features, make_rows(200, seed=1)),
        "some": parse(features, make_rows(13, seed=2)),
        "long": parse(features, long),
        "one": parse(features, make_rows(1, seed=4)),
        "one without ids": parse(features, make_rows(1, seed=5, empty=True)),
        "without ids": parse(features, make_rows(7, seed=6, empty=True)),
    }


def scores(wrapper, data):
    """Scores by the model in Python."""
    with inference_mode_of(wrapper), torch.inference_mode():
        return dict(wrapper(data))


def assert_close(found, expected, atol=1e-6):
    assert sorted(found) == sorted(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_allclose(
            found[name].numpy(), value.numpy(), rtol=0, atol=atol, err_msg=name
        )


def assert_equal(found, expected):
    assert_close(found, expected, atol=0)
