"""Tables of samplers are read once on each host."""

from __future__ import annotations

import json
import multiprocessing

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist
from google.protobuf import text_format
from torchrec.distributed.types import ShardingPlan

from tzrec.constant import Mode
from tzrec.datasets.samplers.base import BaseSampler
from tzrec.errors import DistributedError, Unsupported
from tzrec.options import Options
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.tools import feature_importance
from tzrec.training.build import build_features, build_loader
from tzrec.training.distributed import offline, plan
from tzrec.training.distributed.cluster import Cluster
from tzrec.training.sampler_tables import SamplerTables

CONFIG = """
data_config { dataset_type: ParquetDataset batch_size: 4 label_fields: "label" loader: THREAD
    negative_sampler { input_path: "%(dir)s/items.txt" num_sample: 6 num_eval_sample: 3
        item_id_field: "item" attr_fields: "item" } }
feature_configs { id_feature { feature_name: "item" num_buckets: 50 embedding_dim: 4 } }
"""


@pytest.fixture
def folder(tmp_path):
    items = "".join(f"{i}\t1.0\t{i}\n" for i in range(50))
    (tmp_path / "items.txt").write_text(f"id:int64\tweight:float\tattrs:string\n{items}")
    table = pa.table({"item": list(range(20)), "label": [1] * 20})
    pq.write_table(table, tmp_path / "data.parquet")
    return tmp_path


@pytest.fixture
def builds(monkeypatch):
    """Counts the samplers that read their tables."""
    built = []
    build = BaseSampler.build

    def counted(sampler):
        built.append(sampler)
        build(sampler)

    monkeypatch.setattr(BaseSampler, "build", counted)
    return built


def loader_of(folder, tables, mode, options=None):
    config = text_format.Parse(CONFIG % {"dir": folder}, EasyRecConfig())
    features = build_features(config.data_config, config.feature_configs)
    options = options or Options()
    path = f"{folder}/data.parquet"
    return build_loader(config, features, path, mode=mode, options=options, tables=tables)


def drawn(loader):
    with loader:
        return [batch.sparse_features["__NEG__"].values().tolist() for batch in loader]


def test_the_loaders_of_a_run_share_them(folder, builds):
    alone = {mode: drawn(loader_of(folder, None, mode)) for mode in (Mode.TRAIN, Mode.EVAL)}
    assert len(builds) == 2
    tables = SamplerTables(Options())
    shared = {mode: drawn(loader_of(folder, tables, mode)) for mode in (Mode.TRAIN, Mode.EVAL)}
    assert len(builds) == 3
    assert shared == alone
    assert {len(ids) for ids in shared[Mode.EVAL]} == {4 + 3}


def test_other_tables_are_read(folder, builds):
    tables = SamplerTables(Options())
    loader_of(folder, tables, Mode.TRAIN).close()
    table = pa.table({"item": pa.array(range(20), pa.int32()), "label": [1] * 20})
    pq.write_table(table, folder / "data.parquet")
    loader_of(folder, tables, Mode.EVAL).close()
    assert len(builds) == 2


def test_memory_that_cannot_be_opened(folder, builds, monkeypatch, caplog):
    def gone(sampler, handle):
        raise DistributedError("the process is gone")

    tables = SamplerTables(Options())
    loader_of(folder, tables, Mode.TRAIN).close()
    monkeypatch.setattr(BaseSampler, "attach", gone)
    loader_of(folder, tables, Mode.EVAL).close()
    assert len(builds) == 2
    assert "the sampler's tables are read once more: the process is gone" in caplog.text


def test_the_planner_counts_with_sampled_rows(folder, monkeypatch):
    seen = {}

    class Planner:
        def __init__(self, **options):
            seen.update(options)

        def plan(self, *_):
            return ShardingPlan({})

    monkeypatch.setattr(plan, "EmbeddingShardingPlanner", Planner)
    monkeypatch.setattr(plan, "planned_tables", lambda model: iter([("", model, None)]))
    monkeypatch.setattr(plan, "table_limits", lambda *_, **__: {})
    with loader_of(folder, None, Mode.TRAIN) as loader:
        assert loader.estimated_rows == 4 + 6
        plan.make_plan(
            torch.nn.Module(), [], cluster=Cluster(ddr=1000), batch_size=loader.estimated_rows
        )
        data_config = text_format.Parse(CONFIG % {"dir": folder}, EasyRecConfig()).data_config
        assert data_config.batch_size + offline.sampled_rows(data_config) == loader.estimated_rows
    assert seen["batch_size"] == 10


def test_importance_has_no_rows_to_exchange(folder):
    config = text_format.Parse(CONFIG % {"dir": folder}, EasyRecConfig())
    with pytest.raises(Unsupported, match="tzrec importance with a sampler"):
        feature_importance._measure(config, None, num_rows=10, repeats=1, seed=0)


def _rank(rank, folder, store):
    built = []
    build = BaseSampler.build
    BaseSampler.build = lambda sampler: (built.append(1), build(sampler))  # type: ignore[method-assign,assignment,return-value]
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
    options = Options(rank=rank, local_rank=rank, world_size=2, local_world_size=2, launched=True)
    tables = SamplerTables(options)
    seen = [drawn(loader_of(folder, tables, mode, options)) for mode in (Mode.TRAIN, Mode.EVAL)]
    (folder / f"rank-{rank}.json").write_text(json.dumps([len(built), seen]))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_read_them_once(folder):
    context = multiprocessing.get_context("spawn")
    store = str(folder / "store")
    ranks = [context.Process(target=_rank, args=(rank, folder, store)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
        assert process.exitcode == 0
    for rank in range(2):
        built, seen = json.loads((folder / f"rank-{rank}.json").read_text())
        assert built == (1 if rank == 0 else 0)
        options = Options(rank=rank, local_rank=rank, world_size=2, local_world_size=2)
        alone = [drawn(loader_of(folder, None, mode, options)) for mode in (Mode.TRAIN, Mode.EVAL)]
        assert seen == alone
