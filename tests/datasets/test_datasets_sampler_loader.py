"""Loaders with a sampler, from the config to the batches."""

from __future__ import annotations

import json
import multiprocessing

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf import text_format

from tzrec.constant import Mode
from tzrec.datasets.dataset import create_dataloader
from tzrec.datasets.position import DataPosition
from tzrec.errors import DataError, FeatureError
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.training.build import build_features

pytestmark = pytest.mark.usefixtures("nothing_left")

NUM_ROWS, NUM_ITEMS, BATCH, SAMPLED = 23, 40, 5, 7

FEATURES = """
feature_configs { id_feature { feature_name: "user" expression: "user:user"
    num_buckets: 100 embedding_dim: 4 } }
feature_configs { id_feature { feature_name: "item" expression: "item:item"
    num_buckets: 100 embedding_dim: 4 %(mask)s } }
feature_configs { id_feature { feature_name: "tags" expression: "item:tags"
    num_buckets: 100 embedding_dim: 4 separator: "\\x1d" } }
feature_configs { raw_feature { feature_name: "price" expression: "item:price" } }
"""
DATA = """
data_config { dataset_type: ParquetDataset batch_size: 5 eval_batch_size: 4 fg_mode: FG_DAG
    label_fields: "label" %(data)s
    %(sampler)s { %(paths)s num_sample: 7 num_eval_sample: 3 item_id_field: "item"
        attr_fields: ["item", "tags", "price"] %(more)s } }
"""
PATHS = {
    "negative_sampler": 'input_path: "%(dir)s/items.txt"',
    "hard_negative_sampler_v2": """user_input_path: "%(dir)s/users.txt"
        item_input_path: "%(dir)s/items.txt" pos_edge_input_path: "%(dir)s/clicks.txt"
        hard_neg_edge_input_path: "%(dir)s/hard.txt" num_hard_sample: 2 user_id_field: "user" """,
}


def write_lines(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines))


def write_tables(folder, tags="{0}\x1d{1}"):
    items = [f"{i}\t{1 + i % 3}\t{i}:{tags.format(i, i + 1)}:0.{i}" for i in range(NUM_ITEMS)]
    write_lines(folder / "items.txt", "id:int64\tweight:float\tattrs:string", *items)
    edge = "userid:int64\titemid:int64\tweight:float"
    clicks = [f"{row % 9}\t{row % NUM_ITEMS}\t1.0" for row in range(NUM_ROWS)]
    hard = [f"{user}\t{item}\t1.0" for user in range(5) for item in (30 + user, 20)]
    users = [f"{u}\t1.0" for u in range(9)]
    write_lines(folder / "users.txt", "id:int64\tweight:float", *users)
    write_lines(folder / "clicks.txt", edge, *clicks)
    write_lines(folder / "hard.txt", edge, *hard)


def write_data(folder, **columns):
    table = {
        "user": [row % 9 for row in range(NUM_ROWS)],
        "item": [row % NUM_ITEMS for row in range(NUM_ROWS)],
        "tags": [str(row % 5) for row in range(NUM_ROWS)],
        "price": [0.5 + row for row in range(NUM_ROWS)],
        "label": [1] * NUM_ROWS,
        **columns,
    }
    pq.write_table(pa.table(table), folder / "data.parquet", row_group_size=4)


@pytest.fixture
def folder(tmp_path):
    write_tables(tmp_path)
    write_data(tmp_path)
    return tmp_path


def config_of(folder, sampler="negative_sampler", *, data="", more="", mask="", edit=str):
    paths = PATHS[sampler] % {"dir": folder}
    data += "" if "loader:" in data else " loader: THREAD"
    filled = {"sampler": sampler, "paths": paths, "data": data, "more": more, "mask": mask}
    return text_format.Parse(edit((FEATURES + DATA) % filled), EasyRecConfig())


def loader_of(folder, *args, mode=Mode.TRAIN, rank=0, world_size=1, with_log_q=False, **options):
    config = config_of(folder, *args, **options)
    features = build_features(config.data_config, config.feature_configs)
    return create_dataloader(
        config.data_config,
        features,
        f"{folder}/data.parquet",
        mode=mode,
        rank=rank,
        world_size=world_size,
        seed=3,
        with_log_q=with_log_q,
    )


def batches_of(*args, **options):
    with loader_of(*args, **options) as loader:
        return list(loader)


def ids(batch, feature, group="__NEG__"):
    return batch.sparse_features[group][feature].values().tolist()


def content(batch):
    return {key: tensor.tolist() for key, tensor in batch.to_dict().items()}


def test_items_have_their_own_rows(folder):
    batches = batches_of(folder)
    assert [len(b.labels["label"]) for b in batches] == [5, 5, 5, 5, 3]
    for number, batch in enumerate(batches):
        first = number * BATCH
        positives = [row % NUM_ITEMS for row in range(first, min(first + BATCH, NUM_ROWS))]
        found = ids(batch, "item")
        assert found[: len(positives)] == positives
        drawn = found[len(positives) :]
        assert len(drawn) == SAMPLED
        assert not set(drawn) & set(positives)
        assert ids(batch, "user", "__BASE__") == [
            row % 9 for row in range(first, first + len(positives))
        ]
        tags = batch.sparse_features["__NEG__"]["tags"]
        assert tags.lengths().tolist() == [1] * len(positives) + [2] * SAMPLED
        assert tags.values().tolist()[len(positives) :] == [i for d in drawn for i in (d, d + 1)]
        price = batch.dense_features["__NEG__"]["price"][:, 0].tolist()
        expected = [float(f"0.{item}") for item in drawn]
        assert price[len(positives) :] == pytest.approx(expected)


@pytest.mark.parametrize("mode", ["FG_NONE", "FG_NORMAL", "FG_BUCKETIZE"])
def test_other_ways_of_feature_generation(folder, mode):
    """Columns are called like the features, so all modes read the same ids of them."""

    def edit(text):
        text = text.replace("FG_DAG", mode)
        return text.replace("fg_mode", r'fg_encoded_multival_sep: "\x1d" fg_mode')

    wanted, found = batches_of(folder), batches_of(folder, edit=edit)
    assert [content(b) for b in found] == [content(b) for b in wanted]


def test_hard_negatives(folder):
    batch = batches_of(folder, "hard_negative_sampler_v2")[1]  # users 5 6 7 8 0
    assert batch.additional_infos["hard_neg_indices"].tolist() == [[4, 0], [4, 1]]
    assert sorted(ids(batch, "item")[BATCH + SAMPLED :]) == [20, 30]
    first = batches_of(folder, "hard_negative_sampler_v2")[0]
    pairs = first.additional_infos["hard_neg_indices"].tolist()
    assert pairs == [[user, i] for user in range(5) for i in range(2)]
    drawn = ids(first, "item")[BATCH + SAMPLED :]
    assert [set(drawn[i : i + 2]) for i in range(0, 10, 2)] == [{20, 30 + u} for u in range(5)]


def test_probabilities_are_told_on_request(folder):
    weights = np.array([1 + i % 3 for i in range(NUM_ITEMS)]) / sum(
        1 + i % 3 for i in range(NUM_ITEMS)
    )
    for batch in batches_of(folder, with_log_q=True):
        found = ids(batch, "item")
        expected = np.log(weights[found])
        infos = batch.additional_infos
        told = [*infos["pos_log_q"].tolist(), *infos["neg_log_q"].tolist()]
        assert told == pytest.approx(expected.tolist(), rel=1e-5)
    assert all(not batch.additional_infos for batch in batches_of(folder))


def test_evaluation_samples_and_prediction_does_not(folder):
    evaluated = batches_of(folder, mode=Mode.EVAL)
    assert [len(ids(batch, "item")) for batch in evaluated] == [7] * 5 + [6]
    assert [content(b) for b in evaluated] == [
        content(b) for b in batches_of(folder, mode=Mode.EVAL)
    ]
    (folder / "items.txt").unlink()
    predicted = batches_of(folder, mode=Mode.PREDICT)
    assert [i for batch in predicted for i in ids(batch, "item")] == list(range(NUM_ROWS))


def test_ranks_and_passes_draw_differently(folder):
    with loader_of(folder) as loader:
        first = [ids(batch, "item")[-SAMPLED:] for batch in loader]
        loader.set_epoch(1)
        second = [ids(batch, "item")[-SAMPLED:] for batch in loader]
    other = [ids(b, "item")[-SAMPLED:] for b in batches_of(folder, rank=1, world_size=2)]
    assert len({tuple(drawn) for drawn in first + second + other}) == len(first + second + other)


SHUFFLED = "shuffle: true shuffle_buffer_size: 2 "


class TestSameDraws:
    """Whoever parses a batch, and whenever, draws the same."""

    def test_workers(self, folder, workers_as_threads):
        wanted = [content(batch) for batch in batches_of(folder, data=SHUFFLED)]
        data = SHUFFLED + "loader: PROCESS num_workers: %d in_order: true"
        for workers in (1, 4):
            assert [content(b) for b in batches_of(folder, data=data % workers)] == wanted

    def test_a_process(self, folder):
        wanted = [content(batch) for batch in batches_of(folder, data=SHUFFLED)]
        data = SHUFFLED + "loader: PROCESS num_workers: 1"
        with loader_of(folder, data=data) as loader:
            assert [content(batch) for batch in loader] == wanted
            assert multiprocessing.active_children()

    @pytest.mark.parametrize("cost", ["", 'sample_cost_field: "price" batch_cost_size: 20 '])
    def test_a_resumed_pass(self, folder, cost):
        with loader_of(folder, data=SHUFFLED + cost) as loader:
            whole = list(loader)
            position = DataPosition()
            for batch in whole[:3]:
                position.add(batch.checkpoint_info)
            loader.resume(DataPosition.from_json(json.loads(json.dumps(position.to_json()))))
            rest = list(loader)
        assert [content(b) for b in rest] == [content(b) for b in whole[3:]]
        assert len(rest) >= 2

    def test_a_bad_row_that_is_known_or_not(self, folder, workers_as_threads):
        write_data(folder, tags=["x" if row == 7 else "1" for row in range(NUM_ROWS)])
        data = SHUFFLED + "max_bad_rows: 1 "
        with loader_of(folder, data=data) as loader:
            found = [content(batch) for batch in loader]
            known = [content(batch) for batch in loader]
        assert found == known
        data += "loader: PROCESS num_workers: 3"
        assert [content(batch) for batch in batches_of(folder, data=data)] == found


class TestBadRows:
    def test_a_row_of_the_batch_is_named(self, folder):
        write_data(folder, tags=["x" if row == 7 else "1" for row in range(NUM_ROWS)])
        with pytest.raises(FeatureError, match=r"row group 1, row 7 .*'tags' is 'x'"):
            batches_of(folder)

    def test_ranks_with_too_few_rows_split_a_batch(self, folder):
        """Both parts draw, each for itself."""
        tags = ["x" if 10 <= row < 15 else "1" for row in range(NUM_ROWS)]
        write_data(folder, tags=tags)
        data = "max_bad_rows: 9"
        batches = batches_of(folder, data=data, world_size=2)
        sizes = [len(batch.labels["label"]) for batch in batches]
        assert len(batches) == 3
        assert min(sizes) > 0
        drawn = [tuple(ids(b, "item")[n:]) for b, n in zip(batches, sizes, strict=True)]
        assert [len(rows) for rows in drawn] == [SAMPLED] * 3
        assert len(set(drawn)) == 3

    @pytest.mark.parametrize("data", ["", "max_bad_rows: 20"])
    def test_an_item_of_the_sampler_is_named_and_no_row_is_blamed(self, folder, data):
        write_tables(folder, tags="x{0}")
        wrong = r"^the sampler's item (\d+): feature tags of tags holds 'x\1', .*'tags' is 'x\1'"
        with loader_of(folder, data=data) as loader:
            with pytest.raises(FeatureError, match=wrong):
                list(loader)
            assert loader.num_bad_rows == 0

    def test_a_missing_table_is_an_error_before_the_first_batch(self, folder):
        (folder / "items.txt").unlink()
        with pytest.raises(DataError, match=r"items\.txt"):
            loader_of(folder)


def test_masks_hide_rows_of_both_kinds(folder):
    data = "sample_mask_prob: 1.0 negative_sample_mask_prob: 0.0 "
    mask = 'use_mask: true default_value: "99"'
    batch = batches_of(folder, data=data, mask=mask)[0]
    assert ids(batch, "item")[:BATCH] == [99] * BATCH
    assert 99 not in ids(batch, "item")[BATCH:]
    data = "sample_mask_prob: 0.0 negative_sample_mask_prob: 1.0 "
    batch = batches_of(folder, data=data, mask=mask)[0]
    assert ids(batch, "item") == [0, 1, 2, 3, 4] + [99] * SAMPLED
    batch = batches_of(folder, data=data, mask=mask, mode=Mode.EVAL)[0]
    assert 99 not in ids(batch, "item")


def test_one_data_group_for_all(folder):
    batch = batches_of(folder, data="force_base_data_group: true")[0]
    assert set(batch.sparse_features) == {"__BASE__"}
    assert (
        batch.sparse_features["__BASE__"]["user"].lengths().tolist() == [1] * BATCH + [0] * SAMPLED
    )
    assert len(ids(batch, "item", "__BASE__")) == BATCH + SAMPLED


CANDIDATES = """
feature_configs { sequence_feature { sequence_name: "cand" sequence_length: 99 sequence_delim: "|"
    features { id_feature { feature_name: "item" expression: "item:item" num_buckets: 100
        embedding_dim: 4 value_dim: 1 } }
    features { id_feature { feature_name: "tags" expression: "item:tags" num_buckets: 100
        embedding_dim: 4 separator: "\x1d" value_dim: 0 } } } }
feature_configs { id_feature { feature_name: "user" expression: "user:user"
    num_buckets: 100 embedding_dim: 4 } }
"""


@pytest.mark.parametrize("kind", ["text", "lists"])
def test_candidates(folder, kind):
    """Several positives a row; sampled items follow those of the last one."""
    rows = [list(range(row % 3 + 1)) for row in range(NUM_ROWS)]
    columns = {"cand__item": rows, "cand__tags": [[str(i) for i in row] for row in rows]}
    if kind == "text":
        columns = {n: ["|".join(map(str, row)) for row in c] for n, c in columns.items()}
    write_data(folder, **columns)

    def edit(text):
        text = CANDIDATES + text[text.index("data_config") :]
        return text.replace('item_id_field: "item"', 'item_id_field: "cand__item"')

    batches = batches_of(folder, edit=edit)
    assert len(batches) == 5
    for number, batch in enumerate(batches):
        own = rows[number * BATCH : (number + 1) * BATCH]
        assert batch.additional_infos["cand_pos_lengths"].tolist() == [len(row) for row in own]
        ids = batch.sparse_features["__BASE__"]
        lengths = [len(row) for row in own]
        lengths[-1] += SAMPLED
        assert ids["cand__item"].lengths().tolist() == lengths
        positives = [item for row in own for item in row]
        found = ids["cand__item"].values().tolist()
        assert found[: len(positives)] == positives
        assert not set(found[len(positives) :]) & set(positives)
        elements = batch.sequence_mulval_lengths["__BASE__"]["cand__tags"]
        assert elements.lengths().tolist() == lengths
        assert elements.values().tolist() == [1] * len(positives) + [2] * SAMPLED
        assert len(ids["user"].values()) == len(own)


def test_the_ids_need_no_feature(folder):
    """The sampler reads them itself."""

    def edit(text):
        feature = 'raw_feature { feature_name: "price" expression: "user:price" }'
        text = f"feature_configs {{ {feature} }}" + text[text.index("data_config") :]
        return text.replace(
            'attr_fields: ["item", "tags", "price"]', 'attr_fields: ["a", "b", "c"]'
        )

    (batch, *_) = batches_of(folder, "hard_negative_sampler_v2", edit=edit)
    assert batch.dense_features["__BASE__"].values().shape == (BATCH, 1)
    assert len(batch.additional_infos["hard_neg_indices"]) == 10
