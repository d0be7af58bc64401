"""Generated trees: as many levels as the config's sampler, and rows that train on them."""

import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from example_configs import ROOT

from tzrec.config import prepare
from tzrec.demo.shape import trees
from tzrec.demo.shape.world import Size
from tzrec.demo.shape.write import Plan, write
from tzrec.errors import ConfigError


def config_with(levels, num_buckets=1_196_337):
    counts = [0, *([1] * (levels - 1))]
    edits = [f"data_config.tdm_sampler.layer_num_sample={counts}"]
    config = prepare(str(ROOT / "examples/tdm_taobao.config"), edits=edits).config
    for feature in config.feature_configs:
        if feature.id_feature.feature_name == "adgroup_id":
            feature.id_feature.num_buckets = num_buckets
    return config


@pytest.mark.parametrize(
    ("levels", "items", "num_buckets", "expected"),
    [
        (11, 10_000, 1_196_337, 1024),  # 3 children would need more than 3^9 items
        (11, 20_000, 1_196_337, 20_000),  # 3 children
        (5, 20_000, 1_196_337, 20_000),  # 12 children
        (5, 100, 31, 16),  # ids for 15 nodes above
    ],
)
def test_as_many_items_as_the_levels_hold(levels, items, num_buckets, expected):
    assert trees.fit(config_with(levels, num_buckets), Size(items, 5)) == Size(expected, 5)


def test_too_few_items_or_ids():
    for items, ids in ((8, 1000), (100, 20)):
        with pytest.raises(ConfigError, match="5 levels: their tree needs more than 8 items"):
            trees.fit(config_with(5, ids), Size(items, 5))


def test_tables_of_the_generated_items(tmp_path):
    config = config_with(5)
    written = write(config, Plan(str(tmp_path / "out"), rows=400, eval_rows=50, items=30))
    fields = [table.field.rpartition(".")[2] for table in written.tables]
    assert fields == ["item_input_path", "edge_input_path", "predict_edge_input_path"]
    nodes = (tmp_path / "out/tables/node_table.txt").read_text().splitlines()[1:]
    assert [len(nodes)] == [table.rows for table in written.tables[:1]]
    levels = [int(line.split("\t")[2].split(",")[0]) for line in nodes]
    assert sorted(set(levels)) == [-1, 0, 1, 2, 3, 4]
    leaves = [line.split("\t") for line in nodes if re.search(r"\t4,", line)]
    taken = np.array(pq.read_table(tmp_path / "out/train")["adgroup_id"])
    assert {int(leaf[0]) for leaf in leaves} == set(range(len(leaves))) >= set(taken.tolist())
    # Neighbours are of one category.
    kinds = [int(leaf[2].split(",")[2]) for leaf in leaves]
    assert kinds == sorted(kinds, reverse=True)
