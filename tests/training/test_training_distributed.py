"""One process: process group, wrapping, our kernels against FBGEMM's, checkpoints."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from google.protobuf import text_format
from torch import nn
from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection
from torchrec.distributed.types import ShardedTensor
from torchrec.modules.embedding_configs import (
    DataType,
    EmbeddingBagConfig,
    EmbeddingConfig,
    PoolingType,
)
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from tzrec.ops.cpu.collections import CpuEmbeddingBagCollection, CpuEmbeddingCollection
from tzrec.optim.optimizer import build_optimizer
from tzrec.optim.sparse_parameters import split_sparse_parameters
from tzrec.options import Options
from tzrec.protos.train_pb2 import TrainConfig
from tzrec.training.distributed.process_group import init_process_group, process_group
from tzrec.training.distributed.wrap import distribute

CPU = torch.device("cpu")
ROWS, DIM, BATCH = 40, 8, 16
KERNELS = ["auto", "torchrec"]
BOTH = ["sgd_optimizer { lr: 0.1 }", "adagrad_optimizer { lr: 0.1 }"]
BOTH += ["rowwise_adagrad_optimizer { lr: 0.1 }"]
ADAM = "adam_optimizer { lr: 0.1 }"
# Those that only our kernels have on a CPU.
OURS = [
    ADAM,
    "partial_rowwise_adam_optimizer { lr: 0.1 }",
    "lamb_optimizer { lr: 0.1 }",
    "partial_rowwise_lamb_optimizer { lr: 0.1 }",
    "lars_sgd_optimizer { lr: 10 }",
    "adadelta_optimizer { lr: 1 }",
    "rmsprop_optimizer { lr: 0.1 }",
]
CLIPPED = [sparse.replace("}", "gradient_clipping: true max_gradient: 0.01 }") for sparse in BOTH]


class Model(nn.Module):
    """Two pooled tables (the second frozen on demand) and a sequence table under a linear layer."""

    def __init__(
        self,
        *,
        frozen=False,
        dim=DIM,
        data_type=DataType.FP32,
        device=CPU,
        second=PoolingType.MEAN,
    ):
        super().__init__()
        tables = [
            EmbeddingBagConfig(
                name=name,
                num_embeddings=ROWS,
                embedding_dim=dim,
                feature_names=[feature],
                pooling=pooling,
                data_type=data_type,
            )
            for name, feature, pooling in (
                ("sum", "a", PoolingType.SUM),
                ("mean", "b", second),
            )
        ]
        tables[1].trainable = not frozen
        self.ebc = EmbeddingBagCollection(tables=tables, device=device)
        rows = EmbeddingConfig(
            name="rows",
            num_embeddings=ROWS,
            embedding_dim=dim,
            feature_names=["c"],
            data_type=data_type,
        )
        self.ec = EmbeddingCollection(tables=[rows], device=device)
        self.linear = nn.Linear(3 * dim, 1)

    def sparse_parameters(self):
        return split_sparse_parameters(self)

    def forward(self, kjt):
        pooled, rows = self.ebc(kjt), self.ec(kjt)["c"]
        summed = torch.segment_reduce(rows.values(), "sum", lengths=rows.lengths().long())
        return self.linear(torch.cat([pooled["a"], pooled["b"], summed], 1)).squeeze(1)


class Wrapper(nn.Module):
    """As `TrainWrapper`: parameter names start with ``model.``."""

    def __init__(self, **kwargs):
        super().__init__()
        self.model = Model(**kwargs)

    def forward(self, kjt, label):
        return ((self.model(kjt) - label) ** 2).mean()


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 4, (3 * BATCH,), generator=generator)
    ids = torch.randint(0, ROWS // 2, (int(lengths.sum()),), generator=generator)
    return KeyedJaggedTensor(["c", "a", "b"], ids, lengths=lengths), torch.randn(
        BATCH, generator=generator
    )


def config_of(sparse, more="", dense="adam_optimizer { lr: 0.01 }"):
    return text_format.Parse(
        f"sparse_optimizer {{ {sparse} constant_learning_rate {{}} }}"
        f"dense_optimizer {{ {dense} constant_learning_rate {{}} }} {more}",
        TrainConfig(),
    )


def build(sparse, kernels="auto", *, seed=0, more="", **kwargs):
    torch.manual_seed(seed)
    config = config_of(sparse, more)
    model = distribute(Wrapper(**kwargs), train_config=config, device=CPU, kernels=kernels)
    return model, build_optimizer(model, config)


def run(model, optimizer, seeds):
    losses = []
    for seed in seeds:
        optimizer.zero_grad()
        loss = model(*batch(seed))
        optimizer.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def table(model, name):
    """Returns a table whatever the kernels."""
    value = model.state_dict()[name]
    if isinstance(value, ShardedTensor):
        (shard,) = value.local_shards()
        return shard.tensor
    return value


NAMES = [
    "model.ebc.embedding_bags.sum.weight",
    "model.ebc.embedding_bags.mean.weight",
    "model.ec.embeddings.rows.weight",
]


@pytest.fixture(autouse=True, scope="module")
def _group():
    with process_group(Options()):
        yield


def test_our_kernels_are_used_on_a_cpu_alone():
    for sparse in [*BOTH, *OURS]:
        model, _ = build(sparse)
        assert isinstance(model.module.model.ebc, CpuEmbeddingBagCollection)
        assert isinstance(model.module.model.ec, CpuEmbeddingCollection)
    model, _ = build(BOTH[0], "torchrec")
    assert isinstance(model.module.model.ebc, ShardedEmbeddingBagCollection)


@pytest.mark.parametrize("kernels", KERNELS)
def test_names_and_initial_weights_are_those_of_the_plain_model(kernels):
    torch.manual_seed(0)
    plain = Wrapper().state_dict()
    model, optimizer = build(BOTH[1], kernels)
    assert sorted(model.state_dict()) == sorted(plain)
    for name, value in plain.items():
        assert torch.equal(table(model, name), value), name
    run(model, optimizer, [1])
    state = optimizer.state_dict()["state"]
    assert sorted(state) == sorted(plain)
    assert list(state[NAMES[0]]) == ["sum.momentum1"]
    assert list(state[NAMES[2]]) == ["rows.momentum1"]


@pytest.mark.parametrize("sparse", BOTH)
def test_our_kernels_train_as_fbgemms(sparse):
    runs = {}
    for kernels in KERNELS:
        model, optimizer = build(sparse, kernels)
        losses = run(model, optimizer, range(6))
        runs[kernels] = (losses, {name: table(model, name).clone() for name in NAMES})
    ours, theirs = runs["auto"], runs["torchrec"]
    assert ours[0] == pytest.approx(theirs[0], rel=1e-6)
    for name in NAMES:
        torch.testing.assert_close(ours[1][name], theirs[1][name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sparse", CLIPPED)
def test_both_kernels_clip_the_gradient_of_the_output(sparse):
    """Before the occurrences of a row are summed up."""
    runs = {}
    for kernels in KERNELS:
        model, optimizer = build(sparse, kernels, second=PoolingType.SUM)
        losses = run(model, optimizer, range(6))
        runs[kernels] = (losses, {name: table(model, name).clone() for name in NAMES})
    ours, theirs = runs["auto"], runs["torchrec"]
    assert ours[0] == pytest.approx(theirs[0], rel=1e-6)
    for name in NAMES:
        torch.testing.assert_close(ours[1][name], theirs[1][name], rtol=1e-5, atol=1e-6)
    plain = BOTH[CLIPPED.index(sparse)]
    assert ours[0] != pytest.approx(run(*build(plain, second=PoolingType.SUM), range(6)), rel=1e-4)


def test_initial_accumulator_reaches_both_kernels():
    sparse = "adagrad_optimizer { lr: 0.1 initial_accumulator_value: 0.5 }"
    losses = []
    for kernels in KERNELS:
        model, optimizer = build(sparse, kernels)
        losses.append(run(model, optimizer, range(4)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert losses[0] != pytest.approx(run(*build(BOTH[1]), range(4)), rel=1e-4)


@pytest.mark.parametrize("kernels", KERNELS)
def test_half_float_tables(kernels):
    model, optimizer = build(BOTH[1], kernels, data_type=DataType.FP16)
    assert table(model, NAMES[0]).dtype == torch.float16
    full = run(*build(BOTH[1]), range(4))
    assert run(model, optimizer, range(4)) == pytest.approx(full, rel=2e-2)


@pytest.mark.parametrize("kernels", KERNELS)
def test_frozen_tables_never_move(kernels):
    model, optimizer = build(BOTH[1], kernels, frozen=True)
    before = {name: table(model, name).clone() for name in NAMES}
    run(model, optimizer, range(3))
    moved = [not torch.equal(table(model, name), before[name]) for name in NAMES]
    assert moved == [True, False, True]


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_table_that_the_model_does_not_name_is_frozen(kernels, monkeypatch):
    monkeypatch.setattr(Model, "sparse_parameters", lambda self: (list(self.ec.parameters()), []))
    model, optimizer = build(BOTH[0], kernels)
    before = {name: table(model, name).clone() for name in NAMES}
    run(model, optimizer, range(2))
    moved = [not torch.equal(table(model, name), before[name]) for name in NAMES]
    assert moved == [False, False, True]


def test_embedding_l2_pulls_rows_of_the_batch_to_zero():
    plain, optimizer = build(BOTH[0])
    run(plain, optimizer, [0])
    penalised, optimizer = build(BOTH[0], more="embedding_l2: 0.5")
    run(penalised, optimizer, [0])
    torch.manual_seed(0)
    start = Wrapper().state_dict()[NAMES[0]]
    ids = batch(0)[0]["a"].values().unique()
    difference = table(plain, NAMES[0]) - table(penalised, NAMES[0])
    torch.testing.assert_close(difference[ids], 0.1 * 0.5 * start[ids])
    others = torch.ones(ROWS, dtype=torch.bool)
    others[ids] = False
    assert not difference[others].any()


def test_embedding_l2_of_all_rows_pulls_the_others_too():
    plain, optimizer = build(BOTH[0])
    run(plain, optimizer, [0])
    more = "embedding_l2: 0.5 embedding_l2_all_rows: true"
    penalised, optimizer = build(BOTH[0], more=more)
    run(penalised, optimizer, [0])
    torch.manual_seed(0)
    start = Wrapper().state_dict()[NAMES[0]]
    difference = table(plain, NAMES[0]) - table(penalised, NAMES[0])
    torch.testing.assert_close(difference, 0.1 * 0.5 * start)


@pytest.mark.parametrize("kernels", KERNELS)
def test_schedules_reach_the_tables(kernels):
    model, optimizer = build(BOTH[0], kernels)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = {name: table(model, name).clone() for name in NAMES}
    run(model, optimizer, [0])
    for name in NAMES:
        assert torch.equal(table(model, name), before[name])


@pytest.mark.parametrize("kernels", KERNELS)
def test_grad_scaler_does_not_reach_the_tables(kernels):
    expected = run(*build(BOTH[1], kernels), range(4))
    more = "grad_scaler { init_scale: 1024 }"
    assert run(*build(BOTH[1], kernels, more=more), range(4)) == pytest.approx(expected, rel=1e-6)


def test_without_a_config_nothing_trains_but_everything_evaluates():
    torch.manual_seed(0)
    plain = Wrapper()
    expected = plain(*batch(0)).detach()
    model = distribute(plain, device=CPU)
    assert not model.fused_optimizer.params
    with torch.no_grad():
        torch.testing.assert_close(model(*batch(0)), expected)


def test_tables_on_the_meta_device_are_initialised():
    def ones(weight):
        return nn.init.ones_(weight)

    torch.manual_seed(0)
    wrapper = Wrapper(device=torch.device("meta"))
    for config in wrapper.model.ebc.embedding_bag_configs() + wrapper.model.ec.embedding_configs():
        config.init_fn = ones
    model = distribute(wrapper, train_config=config_of(ADAM), device=CPU)
    for name in NAMES:
        assert torch.equal(table(model, name), torch.ones(ROWS, DIM))


def save(directory, model, optimizer):
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    dcp.save(state, checkpoint_id=str(directory))


def load(directory, model, optimizer):
    optimizer.init_state()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    dcp.load(state, checkpoint_id=str(directory))
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])


@pytest.mark.parametrize(
    ("sparse", "kernels"),
    [(sparse, kernels) for sparse in BOTH for kernels in KERNELS]
    + [(sparse, "auto") for sparse in OURS],
)
def test_a_restored_run_goes_on_bit_by_bit(tmp_path, sparse, kernels):
    model, optimizer = build(sparse, kernels)
    run(model, optimizer, range(3))
    save(tmp_path, model, optimizer)
    expected = run(model, optimizer, range(3, 7))
    second, restored = build(sparse, kernels, seed=1)
    load(tmp_path, second, restored)
    assert run(second, restored, range(3, 7)) == expected
    for name in NAMES:
        assert torch.equal(table(second, name), table(model, name))


@pytest.mark.parametrize("sparse", BOTH)
@pytest.mark.parametrize(("saved_by", "loaded_by"), [("auto", "torchrec"), ("torchrec", "auto")])
def test_checkpoints_do_not_depend_on_the_kernels(tmp_path, sparse, saved_by, loaded_by):
    model, optimizer = build(sparse, saved_by)
    run(model, optimizer, range(3))
    save(tmp_path, model, optimizer)
    expected = run(model, optimizer, range(3, 7))
    second, restored = build(sparse, loaded_by, seed=1)
    load(tmp_path, second, restored)
    assert run(second, restored, range(3, 7)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_plain_model_loads_the_weights(tmp_path, kernels):
    model, optimizer = build(BOTH[1], kernels)
    run(model, optimizer, range(3))
    save(tmp_path, model, optimizer)
    plain = Wrapper()
    state = {"model": plain.state_dict()}
    dcp.load(state, checkpoint_id=str(tmp_path))
    plain.load_state_dict(state["model"])
    with torch.no_grad():
        torch.testing.assert_close(plain(*batch(9)), model(*batch(9)))


def test_accumulators_keep_torchrecs_values(tmp_path):
    """Ours and FBGEMM's states agree, so that a checkpoint may change its kernels."""
    states = []
    for kernels in KERNELS:
        model, optimizer = build(BOTH[2], kernels)
        run(model, optimizer, range(3))
        value = optimizer.state_dict()["state"][NAMES[0]]["sum.momentum1"]
        states.append(value.local_shards()[0].tensor if kernels == "torchrec" else value)
    torch.testing.assert_close(states[0], states[1])


def test_tables_are_counted_after_wrapping():
    for kernels in KERNELS:
        model, _ = build(BOTH[0], kernels, frozen=True)
        trainable, frozen = split_sparse_parameters(model.module.model)
        assert (len(trainable), len(frozen)) == (2, 1)
        assert sum(p.numel() for p in trainable) == 2 * ROWS * DIM


def test_deep_copies_are_independent():
    torch.manual_seed(0)
    model = Wrapper()
    twin = copy.deepcopy(model)
    wrapped = distribute(model, train_config=config_of(ADAM), device=CPU)
    run(wrapped, build_optimizer(wrapped, config_of(ADAM)), [0])
    torch.manual_seed(0)
    for (name, value), (_, start) in zip(
        twin.named_parameters(), Wrapper().named_parameters(), strict=True
    ):
        assert torch.equal(value, start), name


def test_a_group_that_exists_is_used_and_kept():
    assert init_process_group(Options()) == CPU
    with process_group(Options()) as device:
        assert device == CPU
    assert dist.is_initialized()


SCRIPT = """
import torch
import torch.distributed as dist
from tzrec.errors import DistributedError
from tzrec.options import Options
from tzrec.training.distributed.process_group import process_group

try:
    with process_group(Options(process_group_timeout=60)) as device:
        assert device.type == "cpu" and dist.get_backend() == "gloo"
        dist.all_reduce(torch.ones(1))
        raise KeyError("inside")
except KeyError:
    pass
assert not dist.is_initialized()
try:
    with process_group(Options(rank=1, world_size=2)):
        pass
except DistributedError as error:
    print(error)
"""


def test_a_process_ends_cleanly_and_a_missing_rendezvous_is_named():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "rank 1 of 2 cannot join the process group" in done.stdout
    assert "torchrun" in done.stdout
