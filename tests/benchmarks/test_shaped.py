"""The Criteo- and Taobao-shaped sets: what their rows hold, and configs that fit them."""

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tzrec.config.pipeline import prepare

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import criteo_shaped
import taobao_shaped


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("taobao") / "train.parquet"
    taobao_shaped.write_data(path, 600, longest=7)
    return path


def test_rows_of_the_taobao_shape(log):
    table = pq.read_table(log)
    for name, size in taobao_shaped.SIZES.items():
        ids = table[name].to_numpy()
        assert ids.min() >= 0
        assert ids.max() < size
    lengths = np.array([len(row) for row in table["click_50_seq__brand"].to_pylist()])
    assert (lengths.min(), lengths.max()) == (1, 7)
    clicks, purchases = table["clk"].to_numpy(), table["buy"].to_numpy()
    assert 0 < purchases.sum() < clicks.sum() < len(clicks)
    assert (purchases <= clicks).all()


def test_what_belongs_to_an_ad_is_the_same_in_rows_and_histories(log):
    table = pq.read_table(log)
    brand_of = dict(zip(table["adgroup_id"].to_pylist(), table["brand"].to_pylist(), strict=True))
    ads = [ad for row in table["click_50_seq__adgroup_id"].to_pylist() for ad in row]
    brands = [brand for row in table["click_50_seq__brand"].to_pylist() for brand in row]
    known = [(brand, brand_of[ad]) for ad, brand in zip(ads, brands, strict=True) if ad in brand_of]
    assert len(known) > 20
    assert all(found == expected for found, expected in known)


@pytest.mark.parametrize("model", taobao_shaped.MODELS)
def test_taobao_configs_are_valid(model, log, tmp_path):
    path = tmp_path / "c.config"
    path.write_text(taobao_shaped.config_text(log, tmp_path / "m", model=model))
    config = prepare(str(path)).config
    assert config.model_config.WhichOneof("model") == model
    assert config.data_config.batch_size == (1024 if model == "dssm" else 4096)


@pytest.mark.parametrize("model", criteo_shaped.MODELS)
def test_criteo_configs_are_valid(model, tmp_path):
    data = tmp_path / "d.parquet"
    criteo_shaped.write_data(data, 50)
    path = tmp_path / "c.config"
    path.write_text(criteo_shaped.config_text(data, tmp_path / "m", "adagrad", model=model))
    assert prepare(str(path)).config.model_config.WhichOneof("model") == model
