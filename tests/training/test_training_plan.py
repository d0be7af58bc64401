"""Plans of clusters that are not there: limits, bytes, errors with their cures, late tables."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchrec.distributed.types import ShardingPlan
from torchrec.modules.embedding_configs import DataType, EmbeddingBagConfig, EmbeddingConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection

from tzrec.cli import main
from tzrec.errors import ConfigError, PlanError, Unsupported
from tzrec.features.hash_table import HashTableSpec
from tzrec.modules.embedding_tables import features_of
from tzrec.modules.hash_tables.collections import split_tables
from tzrec.ops.cpu.rule import UpdateRule
from tzrec.options import Options, from_environment
from tzrec.protos.feature_pb2 import ParameterConstraints
from tzrec.training.checkpoint.tables import model_tables
from tzrec.training.distributed.cluster import Cluster, size_text
from tzrec.training.distributed.cures import _Case, _twin, cures, plan_error
from tzrec.training.distributed.limits import Wishes, table_limits
from tzrec.training.distributed.plan import create_sharders, make_plan
from tzrec.training.distributed.process_group import process_group
from tzrec.training.distributed.table import PlanTable, sizes
from tzrec.utils import memory_limit

META = torch.device("meta")
ADAGRAD, ROWWISE = UpdateRule("adagrad", 0.1), UpdateRule("rowwise_adagrad", 0.1)
GPUS = Cluster(8, 2, "cuda", 80 * 10**9, 512 * 10**9)
CPUS = Cluster(4, 2, "cpu", 0, 10**9)


class Model(nn.Module):
    """A big and a small pooled table and one of a sequence."""

    def __init__(self, big=1_000_000, dim=16, data_type=DataType.FP32, frozen=False):
        super().__init__()
        tables = [
            EmbeddingBagConfig(
                name=name,
                num_embeddings=rows,
                embedding_dim=dim,
                feature_names=[f"{name}_f"],
                data_type=data_type,
            )
            for name, rows in (("big", big), ("small", 100))
        ]
        tables[0].trainable = not frozen
        self.ebc = EmbeddingBagCollection(tables=tables, device=META)
        steps = EmbeddingConfig(
            name="steps", num_embeddings=1000, embedding_dim=dim, feature_names=["steps_f"]
        )
        self.ec = EmbeddingCollection(tables=[steps], device=META)


def wish(*types, kernels=()):
    return ParameterConstraints(sharding_types=types, compute_kernels=kernels)


def planned(model, cluster=CPUS, rule=ADAGRAD, **wishes):
    unplaced = sizes(model, rule)
    plan = make_plan(model, create_sharders(), cluster=cluster, wishes=Wishes(**wishes), rule=rule)
    return PlanTable.of(unplaced, plan, cluster, rule)


def limits_of(wishes, rule=ADAGRAD, device="cpu", model=None):
    return table_limits(
        model or Model(),
        create_sharders(),
        wishes,
        rule=rule,
        device_type=device,
        world_size=2,
    )


def test_a_cluster_shares_memory_between_its_processes():
    assert (GPUS.local_size, CPUS.local_size) == (4, 2)
    assert GPUS.usable() == int(0.85 * 80 * 10**9)
    assert GPUS.usable(in_ddr=True) == int(0.85 * 128 * 10**9)
    assert CPUS.usable() == int(0.85 * 5 * 10**8)
    device = CPUS.topology().devices[0].storage
    assert (device.hbm, device.ddr) == (0, CPUS.usable())
    assert str(GPUS) == "8 processes (cuda) on 2 machines, 80.0 GB a GPU, 512.0 GB a machine"
    assert [size_text(n) for n in (1500, 2.5e6, 3e9, 4e12)] == [
        "1.5 KB",
        "2.5 MB",
        "3.0 GB",
        "4.0 TB",
    ]


def test_the_share_that_is_kept(monkeypatch):
    monkeypatch.setenv("STORAGE_RESERVE_PERCENT", "0.5")
    cluster = Cluster(2, 1, "cpu", 0, 10**9)
    assert cluster.usable() == 25 * 10**7
    error, _ = sure(Model(big=10_000_000), cluster)
    assert "250.0 MB a process (50% is kept for the rest)" in error.message
    for wrong in ("15", "1", "-0.1", "a"):
        monkeypatch.setenv("STORAGE_RESERVE_PERCENT", wrong)
        with pytest.raises(ConfigError, match=f"is {wrong!r}, must be a share below 1"):
            from_environment()


GROUP = "kubepods/pod1/box"
LIMITS = {
    "version 2": (f"0::/{GROUP}\n", {f"{GROUP}/memory.max": 5 * 10**9}, 5),
    "of a parent": (
        f"0::/{GROUP}\n",
        {f"{GROUP}/memory.max": "max", "kubepods/memory.max": 3 * 10**9},
        3,
    ),
    "in a container": ("0::/\n", {"memory.max": 4 * 10**9}, 4),
    "version 1": (
        f"9:name=systemd:/\n4:cpu,memory:/{GROUP}\n0::/\n",
        {f"memory/{GROUP}/memory.limit_in_bytes": 2 * 10**9, "memory.max": "max"},
        2,
    ),
    "version 1 in a container": (
        f"4:memory:/{GROUP}\n",
        {"memory/memory.limit_in_bytes": 6 * 10**9},
        6,
    ),
    "no limit": (f"4:memory:/{GROUP}\n", {"memory/memory.limit_in_bytes": 2**63 - 4096}, 8),
    "no groups": (None, {}, 8),
}


@pytest.mark.parametrize("case", LIMITS)
def test_a_container_has_what_its_control_groups_allow(case, tmp_path, monkeypatch):
    groups, files, expected = LIMITS[case]
    (tmp_path / "proc/self").mkdir(parents=True)
    if groups is not None:
        (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, value in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    machine = SimpleNamespace(total=8 * 10**9)
    monkeypatch.setattr("psutil.virtual_memory", lambda: machine)
    limits = list(memory_limit.cgroup_limits(tmp_path))
    monkeypatch.setattr(memory_limit, "cgroup_limits", lambda: limits)
    with process_group(Options()):
        assert Cluster.of_process(torch.device("cpu")).ddr == expected * 10**9


def test_feature_constraints_go_before_the_global_ones():
    found = limits_of(Wishes(wish("row_wise"), {"big_f": wish("table_wise")}))
    assert {table: limit.sharding_types for table, limit in found.items()} == {
        ("ebc", "big"): ["table_wise"],
        ("ebc", "small"): ["row_wise"],
        ("ec", "steps"): ["row_wise"],
    }
    plan = planned(Model(), every=wish("row_wise"), by_feature={"big_f": wish("table_wise")})
    assert {table.name: table.sharding for table in plan.tables} == {
        "big": "table_wise",
        "small": "row_wise",
        "steps": "row_wise",
    }


def test_features_of_a_shared_table_must_agree():
    model = Model()
    model.ebc.embedding_bag_configs()[0].feature_names.append("other")
    wishes = {"big_f": wish("table_wise"), "other": wish("row_wise")}
    with pytest.raises(ConfigError, match="'big_f' and 'other' share the table 'big' but differ"):
        limits_of(Wishes(None, wishes), model=model)
    wishes["other"] = wish("table_wise")
    assert of_big(Wishes(None, wishes), model=model) == ["table_wise"]


def of_big(*arguments, **more):
    return limits_of(*arguments, **more)["ebc", "big"].sharding_types


class Twins(nn.Module):
    """A pooled table and one of a sequence of the same name."""

    def __init__(self, rows=1000):
        super().__init__()
        same = {"name": "item", "num_embeddings": rows, "embedding_dim": 16}
        self.ebc = EmbeddingBagCollection(
            tables=[EmbeddingBagConfig(feature_names=["item_id"], **same)], device=META
        )
        self.ec = EmbeddingCollection(
            tables=[EmbeddingConfig(feature_names=["history"], **same)], device=META
        )


@pytest.mark.parametrize(
    ("pooled", "steps"), [("table_wise", "row_wise"), ("row_wise", "table_wise")]
)
def test_tables_of_one_name_have_their_own_limits(pooled, steps):
    wishes = {"item_id": wish(pooled), "history": wish(steps)}
    plan = planned(Twins(), by_feature=wishes)
    found = {table.path: table.sharding for table in plan.tables}
    assert found == {"ebc": pooled, "ec": steps}
    # Of a sequence there is no such placement.
    plan = planned(Twins(), by_feature={"item_id": wish("table_row_wise")})
    assert {t.path: t.sharding for t in plan.tables}["ebc"] == "table_row_wise"


def test_the_error_tells_tables_of_one_name_apart():
    wishes = {"history": wish("table_wise")}
    error, found = sure(Twins(5_000_000), CPUS, by_feature=wishes)
    lines = re.findall(r"^ +(item \(.*\)) .* \S+ [KMG]B  (.*)$", error.message, re.M)
    assert lines == [("item (ebc)", "table_wise, row_wise"), ("item (ec)", "table_wise")]
    assert found[0].endswith(
        "fused for item (train_config.global_embedding_constraints, or embedding_constraints of "
        "their features)"
    )
    kernels = {"history": wish("table_wise", kernels=["fused_uvm"])}
    error, _ = sure(Twins(), CPUS, by_feature=kernels)
    assert "no compute kernel of ['fused_uvm'] can have table 'item' as ['table" in error.message


def with_hash_table(kind):
    """A model whose table `big` is a hash table."""
    model = Model()
    spec = HashTableSpec(kind, 999_999, 1, 5, "lfu")
    model.ebc.embedding_bag_configs()[0].hash_table = spec
    return model


def test_constraints_of_hash_tables():
    """Reference 04 section 4.5: none for zch; 09 section 9.1: no global ones for dynamicemb."""
    free = ["table_wise", "row_wise"]
    every, own = Wishes(wish("row_wise")), Wishes(None, {"big_f": wish("row_wise")})
    data_parallel = Wishes(wish("data_parallel"), {"big_f": wish("data_parallel")})
    assert [of_big(w, model=with_hash_table("zch")) for w in (every, own, data_parallel)] == [
        free
    ] * 3
    dynamic = with_hash_table("dynamicemb")
    assert [of_big(w, model=dynamic) for w in (every, own)] == [free, ["row_wise"]]
    for rule in (ADAGRAD, None):
        with pytest.raises(
            Unsupported, match="'big' cannot be placed data_parallel: rows of a hash"
        ):
            limits_of(data_parallel, rule, model=dynamic)
    mixed = Wishes(None, {"big_f": wish("data_parallel", "row_wise")})
    assert of_big(mixed, model=dynamic) == ["row_wise"]


def test_a_cure_does_not_ask_for_constraints_that_hash_tables_ignore():
    small = Cluster(2, 1, "cuda", 10**7, 10**12)
    _, found = sure(with_hash_table("zch"), small)
    assert not [text for text in found if text.startswith("let big tables lie")]


def test_a_feature_name_may_hold_an_at():
    model = Model()
    config = model.ebc.embedding_bag_configs()[0]
    config.feature_names = ["big@f"]
    assert of_big(Wishes(None, {"big@f": wish("row_wise")}), model=model) == ["row_wise"]
    assert model_tables(model)["ebc.embedding_bags.big.weight"].features == ("big@f",)
    config.hash_table, config.feature_names = HashTableSpec("dynamicemb", 9, 2, 1, "lru"), ["a@b"]
    other = EmbeddingConfig(name="t", num_embeddings=9, embedding_dim=4, feature_names=["a@b"])
    other.hash_table = config.hash_table
    split_tables([config, other])
    assert config.feature_names == ["a@b@big"]
    assert features_of(config) == features_of(other) == ["a@b"]


@pytest.mark.parametrize(
    ("rule", "kind", "says"),
    [
        (ROWWISE, "column_wise", "rowwise_adagrad has one number for a row"),
        (UpdateRule("lamb", 0.1), "column_wise", "lamb has one number for a row"),
        (UpdateRule("adam", 0.1), "data_parallel", "adam would move rows that the batch does not"),
        (UpdateRule("sgd", 0.1, max_gradient=1.0), "data_parallel", "sgd with clipping or weight"),
    ],
)
def test_placements_that_would_change_what_is_learnt(rule, kind, says):
    with pytest.raises(Unsupported, match=f"'big' cannot be placed {kind}: {says}"):
        limits_of(Wishes(wish(kind)), rule)
    # Something else is left.
    assert of_big(Wishes(wish(kind, "row_wise")), rule) == ["row_wise"]
    # Nothing is learnt there.
    assert of_big(Wishes(wish(kind)), None) == [kind]


def test_half_floats_are_not_replicated():
    model = Model(data_type=DataType.FP16)
    with pytest.raises(Unsupported, match="such tables are FP32"):
        limits_of(Wishes(wish("data_parallel")), model=model)


def test_a_collection_says_what_it_can_be():
    with pytest.raises(ConfigError, match="'steps' cannot be placed table_row_wise") as caught:
        limits_of(Wishes(wish("table_row_wise")))
    assert "column_wise, data_parallel, row_wise, table_wise" in caught.value.hint


@pytest.mark.parametrize(("dim", "ranks", "width"), [(16, 2, 8), (16, 8, 4), (24, 4, 8), (8, 3, 4)])
def test_columns_are_spread_over_the_ranks(dim, ranks, width):
    cluster = Cluster(ranks, 1, "cpu", 0, 10**9)
    plan = planned(Model(dim=dim), cluster, every=wish("column_wise"))
    (big,) = (table for table in plan.tables if table.name == "big")
    pieces = dim // width
    assert sorted(big.bytes_of.values()) == [1_000_000 * width * 8] * pieces


def test_bytes_of_a_plan():
    plan = planned(Model(), every=wish("row_wise"))
    (big,) = (table for table in plan.tables if table.name == "big")
    assert (big.weights, big.states) == (64_000_000, 64_000_000)
    assert big.bytes_of == dict.fromkeys(range(4), 32_000_000)
    assert sum(plan.bytes_of(rank) for rank in range(4)) == sum(t.size for t in plan.tables)
    assert [table.name for table in plan.tables] == ["big", "steps", "small"]
    first, row = str(plan).splitlines()[:2]
    assert first.split() == [
        *("table", "rows", "dim", "weights", "states", "sharding", "ranks", "of", "a", "rank"),
    ]
    share = f"{32e6 / CPUS.usable():.1%}"
    assert row == f"big    1,000,000   16  64.0 MB  64.0 MB  row_wise  0-3{share:>13}"
    stored = json.loads(json.dumps(plan.as_dict()))
    assert stored["tables"][0]["bytes_of_rank"] == {str(rank): 32_000_000 for rank in range(4)}
    assert stored["cluster"]["world_size"] == 4


def test_states_of_each_optimizer_and_of_frozen_tables():
    def of(rule, **more):
        return {table.name: table.states for table in sizes(Model(**more), rule)}["big"]

    assert of(ADAGRAD) == of(ADAGRAD, data_type=DataType.FP16) == 64_000_000
    assert of(ROWWISE) == 4_000_000
    assert of(UpdateRule("adam", 0.1)) == 128_000_000
    assert of(UpdateRule("sgd", 0.1)) == of(ADAGRAD, frozen=True) == of(None) == 0


def test_a_replicated_table_is_on_every_rank():
    plan = planned(Model(), every=wish("data_parallel"))
    assert plan.tables[0].bytes_of == dict.fromkeys(range(4), 128_000_000)


def test_tables_in_the_memory_of_machines_are_counted_there():
    small = Cluster(2, 1, "cuda", 10**8, 10**12)
    plan = planned(Model(), small, every=wish(kernels=["fused_uvm"]))
    assert plan.bytes_of(0) == 0
    assert plan.bytes_of(0, in_ddr=True) + plan.bytes_of(1, in_ddr=True) > 128_000_000


def sure(model, cluster, rule=ADAGRAD, **wishes):
    """Returns the error, its cures, and what they were found for."""
    with pytest.raises(PlanError) as caught:
        planned(model, cluster, rule, **wishes)
    found = Wishes(**wishes)
    limits = table_limits(
        model,
        create_sharders(),
        found,
        rule=rule,
        device_type=cluster.device_type,
        world_size=cluster.world_size,
    )
    return caught.value, list(cures(_Case(_twin(model, rule), cluster, limits, rule)))


def test_the_error_says_what_is_needed_and_what_there_is():
    error, found = sure(Model(big=100_000_000), CPUS)
    assert error.exit_code == 5
    assert "they need 12.8 GB (weights 6.4 GB, optimizer states 6.4 GB)" in error.message
    assert "there are 1.7 GB for tables, 425.0 MB a process (15% is kept" in error.message
    assert re.search(r"big +100,000,000 +16 +6.4 GB +6.4 GB +table_wise, row_wise", error.message)
    assert [line.strip()[:3] for line in error.hint.splitlines()[1:]] == [
        f"{i}. " for i in range(1, len(found) + 1)
    ]


def test_only_ten_tables_are_shown():
    tables = [
        EmbeddingBagConfig(
            name=f"t{i}", num_embeddings=10**7 + i, embedding_dim=16, feature_names=[f"f{i}"]
        )
        for i in range(13)
    ]
    model = EmbeddingBagCollection(tables=tables, device=META)
    message = plan_error(model, CPUS, limits_of(Wishes(), model=model), ADAGRAD).message
    assert re.findall(r"^    (t\d+)", message, re.M) == [f"t{i}" for i in range(12, 2, -1)]
    assert "and 3 smaller ones" in message


def test_first_cure_free_what_must_stay_whole():
    error, found = sure(Model(big=5_000_000), CPUS, every=wish("table_wise"))
    assert "but not in pieces that fit" in error.message
    assert found[0].startswith("also allow sharding_types row_wise and table_wise")
    planned(Model(big=5_000_000), CPUS, every=wish("table_wise", "row_wise"))


def test_first_cure_a_kernel_that_exists():
    error, found = sure(Model(), CPUS, every=wish("table_wise", kernels=["fused_uvm"]))
    assert "no compute kernel of ['fused_uvm'] can have table 'big' as ['table" in error.message
    assert found[0].startswith("also allow")
    planned(Model(), CPUS, every=wish("table_wise", kernels=["fused_uvm", "fused"]))


def test_first_cure_the_memory_of_machines():
    model, small = Model(big=10_000_000), Cluster(2, 1, "cuda", 10**8, 10**12)
    _, found = sure(model, small)
    assert found[0].startswith("let big tables lie in the memory of the machines")
    kernels = json.loads(re.search(r"\[.*?\]", found[0])[0])
    planned(model, small, every=wish(kernels=kernels))


def test_first_cure_more_machines():
    model = Model(big=100_000_000)
    _, found = sure(model, CPUS)
    hosts, processes = map(int, re.match(r"(\d+) machines.*\((\d+) proc", found[0]).groups())
    grown = Cluster(processes, hosts, "cpu", 0, 10**9)
    plan = planned(model, grown)
    assert max(plan.bytes_of(rank) for rank in range(processes)) <= grown.usable()
    # Not many more than there must be.
    assert hosts * 0.85 * 10**9 < 1.6 * 12.8e9


def test_other_cures_make_them_fit_too():
    model = Model(big=20_000_000)
    _, found = sure(model, CPUS)
    kinds = [text.split()[0] for text in found]
    assert kinds[1:3] == ["rowwise_adagrad_optimizer", "at"]
    planned(model, CPUS, ROWWISE)
    cap = int(re.match(r"at most ([\d,]+) rows", found[2])[1].replace(",", ""))
    planned(Model(big=cap), CPUS)
    with pytest.raises(PlanError):
        planned(Model(big=int(cap * 1.1)), CPUS)
    # States of half floats are FP32: 20 M rows need 1.3 GB less only without them.
    sgd = UpdateRule("sgd", 0.1)
    _, found = sure(Model(big=40_000_000), CPUS, sgd)
    assert found[1].startswith('data_type: "FP16" for the features of big')
    planned(Model(big=40_000_000, data_type=DataType.FP16), CPUS, sgd)


def test_no_cure_is_an_optimizer_that_the_placement_refuses():
    wished = wish("column_wise")
    _, found = sure(Model(big=20_000_000), CPUS, every=wished)
    assert found
    assert not [text for text in found if text.startswith("rowwise_adagrad")]
    with pytest.raises(Unsupported):
        planned(Model(big=20_000_000), CPUS, ROWWISE, every=wished)


def test_no_tables_no_plan():
    plan = make_plan(nn.Linear(1, 1), create_sharders(), cluster=CPUS)
    assert isinstance(plan, ShardingPlan)
    assert not plan.plan


def plan_command(capsys, *arguments):
    code = main(["plan", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_command_plans(click_config, capsys):
    config = click_config()
    sizes_of = ("--world-size", 8, "--hbm", "80GB", "--ddr", "512GB")
    code, out, err = plan_command(capsys, config, *sizes_of)
    assert code == 0, err
    assert out.splitlines()[0].startswith("table ")
    assert "8 processes (cuda) on 1 machine, 80.0 GB a GPU, 512.0 GB a machine" in out
    code, out, err = plan_command(capsys, config, "--ddr", "1GiB", "--json")
    stored = json.loads(out)
    assert {table["bytes_of_rank"]["0"] for table in stored["tables"]} == {320, 1920, 2560}
    assert stored["cluster"]["ddr"] == 2**30
    rows = "feature_configs[0].id_feature.num_buckets=2000000000"
    code, out, err = plan_command(capsys, config, "--world-size", 2, "--ddr", "64GB", "--set", rows)
    assert (code, out) == (5, "")
    assert "they need 128.0 GB" in err
    assert "1. 3 machines like these (6 processes)" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--ddr is missing"),
        (("--ddr", "80XB"), "'80XB' is no size such as 80GB"),
        (("--ddr", "1GB", "--device", "cuda"), "--device cuda needs --hbm"),
        (("--ddr", "1GB", "--hbm", "1GB", "--device", "cpu"), "--device cpu has none"),
        (("--ddr", "1GB", "--world-size", 3, "--hosts", 2), "3 processes cannot be shared by 2"),
    ],
)
def test_flags_that_do_not_go_together(click_config, capsys, arguments, says):
    code, _, err = plan_command(capsys, click_config(), *arguments)
    assert code == 2
    assert says in err
