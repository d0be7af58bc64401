"""What our kernels do not do, TorchRec's do not do, and a machine does not have."""

import pytest
import torch
from fbgemm_gpu.split_table_batched_embeddings_ops_training import WeightDecayMode
from test_training_distributed import ADAM, BOTH, CLIPPED, OURS, Wrapper, build, config_of, run
from torchrec import optim as torchrec_optim

from tzrec.errors import ConfigError, DistributedError, PlanError, Unsupported
from tzrec.options import Options
from tzrec.training.distributed import table_optimizers, wrap
from tzrec.training.distributed.process_group import init_process_group, process_group


@pytest.fixture(autouse=True, scope="module")
def _group():
    with process_group(Options()):
        yield


@pytest.mark.parametrize(
    ("sparse", "more", "says"),
    [
        *((sparse, "", f"optimizer {sparse.split('_optimizer')[0]} on a CPU") for sparse in OURS),
        (CLIPPED[0], "", "sgd with gradient_clipping and mean pooling on a CPU"),
        (
            "rowwise_adagrad_optimizer { lr: 1 weight_decay: 1 weight_decay_mode: L2 }",
            "",
            "rowwise_adagrad with weight_decay on a CPU with several processes",
        ),
        (BOTH[0], "embedding_l2: 0.1", "embedding_l2 with several processes"),
    ],
)
def test_what_torchrec_would_not_do_is_refused(sparse, more, says):
    with pytest.raises(Unsupported, match=says):
        build(sparse, "torchrec", more=more)


def test_odd_dimensions_train_in_our_kernels_only():
    assert run(*build(ADAM, dim=10), range(2))
    with pytest.raises(ConfigError, match="embedding_dim 10: with several processes it must be"):
        build(BOTH[0], "torchrec", dim=10)


def test_a_model_that_does_not_fit(monkeypatch):
    monkeypatch.setattr(
        "psutil.virtual_memory",
        lambda: type("Memory", (), {"total": 1000})(),
    )
    with pytest.raises(PlanError, match=r"placed on 1 process \(cpu\) on 1 machine, 1.0 KB"):
        build(BOTH[0], "torchrec")


def test_a_table_that_loses_its_name_is_told():
    """Its rows would be whatever lay in the memory."""
    values = {name: lambda: torch.ones(2) for name in ("ebc.t.weight", "ebc.u.weight")}
    model = torch.nn.Module()
    model.state_dict = lambda: {"ebc.t.weight": torch.zeros(2), "dense": torch.zeros(1)}
    with pytest.raises(DistributedError, match=r"1 embedding tables have other .*: ebc\.u\.weight"):
        wrap._restore(model, values)
    del values["ebc.u.weight"]
    wrap._restore(model, values)


def refused_on_a_gpu(sparse):
    rule = wrap.create_sparse_optimizer(config_of(sparse).sparse_optimizer)
    try:
        table_optimizers.refuse_inexact(rule, torch.device("cuda"), Wrapper(), {})
    except Unsupported as error:
        return str(error).splitlines()[0]
    return ""


def test_a_gpu_has_what_torchrec_can_store():
    refused = {sparse.split("_optimizer")[0]: refused_on_a_gpu(sparse) for sparse in OURS + BOTH}
    assert {kind: message for kind, message in refused.items() if message} == {
        kind: f"sparse optimizer {kind} on a GPU" for kind in ("lars_sgd", "adadelta", "rmsprop")
    }


MOMENTS = {"lr": 0.5, "eps": 1e-8, "beta1": 0.5, "beta2": 0.25, "weight_decay": 0.125}


@pytest.mark.parametrize(
    ("sparse", "optimizer_class", "expected"),
    [
        ("adam_optimizer { %s }", torchrec_optim.Adam, MOMENTS),
        ("partial_rowwise_adam_optimizer { %s }", torchrec_optim.PartialRowWiseAdam, MOMENTS),
        ("lamb_optimizer { %s }", torchrec_optim.LAMB, MOMENTS),
        ("partial_rowwise_lamb_optimizer { %s }", torchrec_optim.PartialRowWiseLAMB, MOMENTS),
        ("sgd_optimizer { lr: 0.5 }", torchrec_optim.SGD, {"lr": 0.5, "eps": 1e-8}),
        (
            "rowwise_adagrad_optimizer { lr: 0.5 weight_decay: 0.25 weight_decay_mode: DECOUPLE }",
            torchrec_optim.RowWiseAdagrad,
            {
                "lr": 0.5,
                "eps": 1e-8,
                "weight_decay": 0.25,
                "weight_decay_mode": WeightDecayMode.DECOUPLE,
            },
        ),
        (
            "adagrad_optimizer { lr: 0.5 gradient_clipping: true max_gradient: 2 }",
            torchrec_optim.Adagrad,
            {"lr": 0.5, "eps": 1e-8, "gradient_clipping": True, "max_gradient": 2.0},
        ),
    ],
)
def test_gpu_optimizers_get_the_constants_of_the_rule(sparse, optimizer_class, expected):
    text = sparse.replace("%s", "lr: 0.5 beta1: 0.5 beta2: 0.25 weight_decay: 0.125")
    rule = wrap.create_sparse_optimizer(config_of(text).sparse_optimizer)
    assert table_optimizers.torchrec_optimizer(rule) == (optimizer_class, expected)


def test_accumulation_of_torchrecs_tables_is_not_promised(caplog):
    with caplog.at_level("WARNING", logger="tzrec"):
        build(BOTH[0], more="gradient_accumulation_steps: 2")
        assert not caplog.messages
        build(BOTH[0], "torchrec", more="gradient_accumulation_steps: 2")
    (message,) = caplog.messages
    assert message.startswith("gradient_accumulation_steps: 2 accumulates dense gradients only")


def test_a_stored_plan_is_not_loaded_and_that_is_said(caplog, monkeypatch):
    monkeypatch.setenv("FORCE_LOAD_SHARDING_PLAN", "1")
    with caplog.at_level("WARNING", logger="tzrec"):
        build(BOTH[0])
        assert not caplog.messages
        build(BOTH[0], "torchrec")
    (message,) = caplog.messages
    assert message.startswith("FORCE_LOAD_SHARDING_PLAN=1 has no effect: any placement")


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DistributedError, match="local rank 1 has no GPU: there are 1"):
        init_process_group(Options(rank=1, local_rank=1, world_size=2))
