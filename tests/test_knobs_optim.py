"""Every field of every optimizer and learning rate schedule changes the weights or the rate.

The fields are those of the schema, found by reflection; what to change of each stands below. What
the change is right for is tested in tests/optim and tests/ops.
"""

import pytest
from knob_runs import scalar_fields, trained

from tzrec.options import Options
from tzrec.protos.optimizer_pb2 import DenseOptimizer, PartOptimizer, SparseOptimizer
from tzrec.training.distributed.process_group import process_group

OWNERS = {
    "train_config.sparse_optimizer": SparseOptimizer,
    "train_config.dense_optimizer": DenseOptimizer,
    "train_config.dense_optimizer.part_optimizers[0]": PartOptimizer,
}
# Field of an optimizer → its other value, and what both runs set so that it matters.
OPTIMIZER = {
    "lr": ("0.03", ()),
    "momentum": ("0.5", ()),
    "dampening": ("0.5", ("momentum=0.9",)),
    "nesterov": ("true", ("momentum=0.9",)),
    "beta1": ("0.5", ()),
    "beta2": ("0.5", ()),
    "rho": ("0.5", ()),
    "alpha": ("0.5", ()),
    "eps": ("0.1", ()),
    "amsgrad": ("true", ("beta2=0.1",)),
    "initial_accumulator_value": ("0.5", ()),
    "weight_decay": ("0.3", ()),
    "rowwise_adagrad_optimizer.weight_decay": ("0.3", ("weight_decay_mode=L2",)),
    "weight_decay_mode": ("DECOUPLE", ("weight_decay=0.3", "weight_decay_mode=L2")),
    "gradient_clipping": ("true", ("max_gradient=0.0001",)),
    "max_gradient": ("0.0001", ("gradient_clipping=true",)),
}
# Schedule → what both runs set, and the other value of each field.
SCHEDULE = {
    "exponential_decay_learning_rate": (
        ("decay_size=2", "decay_factor=0.5", "warmup_size=2", "warmup_learning_rate=0.01"),
        {
            "decay_size": "3",
            "decay_factor": "0.9",
            "staircase": "false",
            "warmup_learning_rate": "0.02",
            "warmup_size": "3",
            "min_learning_rate": "0.05",
            "by_epoch": "true",
        },
    ),
    "manual_step_learning_rate": (
        ("schedule_sizes=[3, 5]", "learning_rates=[0.05, 0.01]"),
        {
            "schedule_sizes": "[4, 5]",
            "learning_rates": "[0.06, 0.01]",
            "warmup": "true",
            "by_epoch": "true",
        },
    ),
    "cosine_annealing_learning_rate": (
        ("T_max=6", "warmup_size=2", "warmup_learning_rate=0.01"),
        {
            "T_max": "5",
            "min_learning_rate": "0.05",
            "warmup_learning_rate": "0.02",
            "warmup_size": "3",
            "by_epoch": "true",
        },
    ),
    "cosine_annealing_warm_restarts_learning_rate": (
        ("T_0=2", "warmup_size=2", "warmup_learning_rate=0.01"),
        {
            "T_0": "3",
            "T_mult": "2",
            "min_learning_rate": "0.05",
            "warmup_learning_rate": "0.02",
            "warmup_size": "3",
            "by_epoch": "true",
        },
    ),
    "reduce_on_plateau_learning_rate": (
        ("metric=auc",),
        {
            "metric": "binary_cross_entropy",
            "larger_is_better": "false",
            "factor": "0.5",
            "patience": "2",
            "min_delta": "0.02",
            "min_learning_rate": "0.05",
        },
    ),
    "constant_learning_rate": ((), {}),
}
# Seen otherwise: how an update is computed, not what it is.
ELSEWHERE = {"fused": "tests/optim/test_optim_builder.py::test_fused_unless_the_config_says_no"}


@pytest.fixture(autouse=True, scope="module")
def group():
    with process_group(Options()):
        yield


def optimizer_fields():
    for owner, message in OWNERS.items():
        for optimizer in message.DESCRIPTOR.oneofs_by_name["optimizer"].fields:
            for path in scalar_fields(optimizer.message_type, f"{owner}.{optimizer.name}"):
                if path.rpartition(".")[2] not in ELSEWHERE:
                    yield path


def schedule_fields():
    for owner, message in OWNERS.items():
        for schedule in message.DESCRIPTOR.oneofs_by_name["learning_rate"].fields:
            yield from scalar_fields(schedule.message_type, f"{owner}.{schedule.name}")


def chosen(message, *fields):
    """An edit that chooses a member of a oneof."""
    return f"{message}={{ {' '.join(field.replace('=', ': ') for field in fields)} }}"


@pytest.mark.parametrize("path", optimizer_fields())
def test_field_of_an_optimizer(path):
    message, _, name = path.rpartition(".")
    value, needed = OPTIMIZER.get(f"{message.rpartition('.')[2]}.{name}", OPTIMIZER[name])
    base = (chosen(message, "lr=0.1", *needed),)
    assert trained(base)[0] != trained((*base, f"{path}={value}"))[0]


@pytest.mark.parametrize("path", schedule_fields())
def test_field_of_a_schedule(path):
    message, _, name = path.rpartition(".")
    needed, values = SCHEDULE[message.rpartition(".")[2]]
    base = (chosen(message, *needed),)
    before, after = trained(base), trained((*base, f"{path}={values[name]}"))
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_only_its_own_rate_changes():
    for index, owner in enumerate(OWNERS):
        rates = trained((chosen(f"{owner}.cosine_annealing_learning_rate", "T_max=8"),))[1]
        changing = [len({step[group] for step in rates}) > 1 for group in range(3)]
        assert changing == [group == index for group in range(3)]


def test_the_pattern_of_a_part_optimizer_chooses_its_parameters():
    part = "train_config.dense_optimizer.part_optimizers[0]"
    base = (f"{part}.sgd_optimizer.lr=0.01",)
    assert trained(base)[0] != trained((*base, f"{part}.regex_pattern=.*weight"))[0]
