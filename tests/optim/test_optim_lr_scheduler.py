"""Schedules against their formulas, written out."""

import math

import pytest
from google.protobuf import text_format

from tzrec.errors import ConfigError
from tzrec.optim.lr_scheduler import create_scheduler
from tzrec.protos.optimizer_pb2 import DenseOptimizer, PartOptimizer, SparseOptimizer

BASE = 0.8


class Groups:
    """Stands for an optimizer."""

    def __init__(self, *rates):
        self.param_groups = [{"lr": rate, "params": []} for rate in rates]

    @property
    def lr(self):
        return self.param_groups[0]["lr"]


def schedule(text, optimizer, message=DenseOptimizer):
    return create_scheduler(optimizer, text_format.Parse(text, message()))


def rates(text, num_steps, base=BASE):
    """Returns the learning rates of steps 0, 1, …"""
    optimizer = Groups(base)
    scheduler = schedule(text, optimizer)
    found = []
    for _ in range(num_steps):
        found.append(optimizer.lr)
        scheduler.step()
    return found


def test_constant():
    assert rates("constant_learning_rate {}", 3) == [BASE] * 3


@pytest.mark.parametrize("staircase", [True, False])
def test_exponential_decay(staircase):
    text = (
        "exponential_decay_learning_rate { decay_size: 3 decay_factor: 0.5 warmup_size: 4 "
        f"warmup_learning_rate: 0.1 min_learning_rate: 0.15 staircase: {str(staircase).lower()} }}"
    )
    expected = [0.1 + (BASE - 0.1) * t / 4 for t in range(4)]
    for t in range(4, 16):
        p = (t - 4) / 3
        expected.append(max(BASE * 0.5 ** (math.floor(p) if staircase else p), 0.15))
    assert rates(text, 16) == pytest.approx(expected, rel=1e-6)
    assert expected[-1] == 0.15


def test_exponential_decay_defaults():
    found = rates("exponential_decay_learning_rate { decay_size: 2 }", 6)
    expected = [BASE * 0.95 ** (t // 2) for t in range(6)]
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("warmup", [True, False])
def test_manual_step(warmup):
    text = (
        "manual_step_learning_rate { schedule_sizes: [2, 4, 5] learning_rates: [0.4, 0.2, 0.1] "
        f"warmup: {str(warmup).lower()} }}"
    )
    start = [0.8, 0.6, 0.4] if warmup else [0.8, 0.8, 0.8]
    assert rates(text, 8) == pytest.approx([*start, 0.4, 0.4, 0.2, 0.1, 0.1])


def test_cosine_annealing():
    text = (
        "cosine_annealing_learning_rate { T_max: 5 min_learning_rate: 0.1 warmup_size: 2 "
        "warmup_learning_rate: 0.2 }"
    )
    expected = [0.2, 0.5]
    for t in range(8):
        expected.append(0.1 + 0.7 / 2 * (1 + math.cos(math.pi * min(t, 5) / 5)))
    assert rates(text, 10) == pytest.approx(expected, rel=1e-6)
    assert expected[-1] == pytest.approx(0.1)


def test_cosine_annealing_warm_restarts():
    text = (
        "cosine_annealing_warm_restarts_learning_rate "
        "{ T_0: 2 T_mult: 3 min_learning_rate: 0.1 warmup_size: 1 }"
    )
    cycles = [(0, 2), (1, 2), *((t, 6) for t in range(6)), *((t, 18) for t in range(4))]
    expected = [0.0]
    expected += [0.1 + 0.7 / 2 * (1 + math.cos(math.pi * t / size)) for t, size in cycles]
    assert rates(text, 13) == pytest.approx(expected, rel=1e-6)


def test_warm_restarts_without_growth():
    found = rates("cosine_annealing_warm_restarts_learning_rate { T_0: 3 }", 7)
    assert found[0] == found[3] == found[6] == BASE
    assert found[1] == found[4]


ALL = [
    "constant_learning_rate {}",
    "exponential_decay_learning_rate { decay_size: 1 warmup_size: 2 warmup_learning_rate: 0.3 }",
    "manual_step_learning_rate { schedule_sizes: 1 learning_rates: 0.5 }",
    "cosine_annealing_learning_rate { T_max: 4 min_learning_rate: 0.2 }",
    "cosine_annealing_warm_restarts_learning_rate { T_0: 3 min_learning_rate: 0.2 }",
]


@pytest.mark.parametrize("text", ALL)
def test_a_rate_of_zero_stays_zero(text):
    assert rates(text, 6, base=0.0) == [0.0] * 6


@pytest.mark.parametrize("text", ALL)
def test_groups_have_their_own_base(text):
    optimizer = Groups(BASE, 0.4, 0.0)
    scheduler = schedule(text, optimizer)
    alone = {base: rates(text, 4, base) for base in (BASE, 0.4)}
    for t in range(4):
        assert [g["lr"] for g in optimizer.param_groups] == [alone[BASE][t], alone[0.4][t], 0.0]
        scheduler.step()


@pytest.mark.parametrize("text", ALL)
def test_a_restored_schedule_goes_on(text):
    first = Groups(BASE)
    scheduler = schedule(text, first)
    for _ in range(3):
        scheduler.step()
    second = Groups(BASE)
    restored = schedule(text, second)
    restored.load_state_dict(scheduler.state_dict())
    for _ in range(3):
        assert second.lr == first.lr
        scheduler.step()
        restored.step()


@pytest.mark.parametrize("by_epoch", [True, False])
@pytest.mark.parametrize("text", [t.replace(" }", " by_epoch: %s }") for t in ALL[1:]])
def test_by_epoch(text, by_epoch):
    assert schedule(text % str(by_epoch).lower(), Groups(BASE)).by_epoch is by_epoch


@pytest.mark.parametrize("message", [SparseOptimizer, DenseOptimizer, PartOptimizer])
def test_every_optimizer_message_has_schedules(message):
    optimizer = Groups(BASE)
    text = "cosine_annealing_learning_rate { T_max: 1 }"
    config = message()
    if message is PartOptimizer:
        config.regex_pattern = "x"
    text_format.Merge(text, config)
    scheduler = create_scheduler(optimizer, config)
    scheduler.step()
    assert optimizer.lr == 0.0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cosine_annealing_learning_rate { T_max: 0 }", "T_max must be positive, it is 0"),
        ("cosine_annealing_warm_restarts_learning_rate {}", "T_0 must be positive, it is 0"),
        ("exponential_decay_learning_rate {}", "decay_size must be positive"),
        ("manual_step_learning_rate { schedule_sizes: 1 }", "1 schedule_sizes and 0"),
        (
            "manual_step_learning_rate { schedule_sizes: [2, 1] learning_rates: [1, 2] }",
            "must grow",
        ),
        ("reduce_on_plateau_learning_rate { metric: 'auc' factor: 1 }", "between 0 and 1"),
        ("sgd_optimizer { lr: 1 }", "DenseOptimizer has no learning_rate"),
    ],
)
def test_impossible_values(text, says):
    with pytest.raises(ConfigError, match=says) as info:
        schedule(text, Groups(BASE))
    assert isinstance(info.value, ValueError)


PLATEAU = "reduce_on_plateau_learning_rate { metric: 'auc' factor: 0.5 %s }"


def observe_all(text, values, metric="auc", base=BASE):
    optimizer = Groups(base)
    scheduler = schedule(text, optimizer)
    found = []
    for value in values:
        scheduler.observe({metric: value, "loss": 1.0})
        scheduler.step()  # the trainer may call it; only evaluations count
        found.append(optimizer.lr)
    return found


def test_plateau_drops_when_the_metric_stops_improving():
    values = [0.6, 0.7, 0.7, 0.65, 0.8, 0.5]
    assert observe_all(PLATEAU % "", values) == [0.8, 0.8, 0.4, 0.2, 0.2, 0.1]


def test_plateau_patience():
    values = [0.7, 0.6, 0.6, 0.6, 0.6, 0.8]
    assert observe_all(PLATEAU % "patience: 2", values) == [0.8, 0.8, 0.4, 0.4, 0.2, 0.2]


def test_plateau_min_delta():
    assert observe_all(PLATEAU % "min_delta: 0.05", [0.7, 0.74, 0.76]) == [0.8, 0.4, 0.4]


def test_plateau_smaller_is_better():
    values = [0.7, 0.6, 0.65]
    assert observe_all(PLATEAU % "larger_is_better: false", values) == [0.8, 0.8, 0.4]


def test_plateau_minimum():
    found = observe_all(PLATEAU % "min_learning_rate: 0.3", [0.7, 0.6, 0.5])
    assert found == pytest.approx([0.8, 0.4, 0.3])


def test_plateau_takes_what_is_not_a_number_for_no_improvement():
    values = [math.nan, 0.6, 0.7, math.nan, 0.8]
    assert observe_all(PLATEAU % "", values) == [0.4, 0.4, 0.4, 0.2, 0.2]


def test_plateau_survives_a_restart():
    first, second = Groups(BASE), Groups(BASE)
    scheduler, restored = (schedule(PLATEAU % "patience: 2", o) for o in (first, second))
    for value in (0.7, 0.6, 0.6, 0.6):
        scheduler.observe({"auc": value})
    restored.load_state_dict(scheduler.state_dict())
    assert second.lr == first.lr == 0.4
    restored.observe({"auc": 0.6})
    assert second.lr == 0.2


def test_plateau_of_a_metric_that_was_not_evaluated():
    scheduler = schedule(PLATEAU % "", Groups(BASE))
    with pytest.raises(ConfigError, match=r"'auc' was not evaluated, there is auc1.*'auc1'"):
        scheduler.observe({"auc1": 0.5})
