"""Schedules against those of `torch.optim`, where both define the same thing."""

import pytest
import torch
from test_optim_lr_scheduler import BASE, Groups, rates, schedule
from torch.optim import lr_scheduler


def _torch_rates(make, num_steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=BASE)
    scheduler = make(optimizer)
    found = []
    for _ in range(num_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("text", "make", "num_steps"),
    [
        (
            "exponential_decay_learning_rate { decay_size: 1 decay_factor: 0.9 }",
            lambda o: lr_scheduler.ExponentialLR(o, 0.9),
            12,
        ),
        (
            "exponential_decay_learning_rate { decay_size: 4 decay_factor: 0.5 }",
            lambda o: lr_scheduler.StepLR(o, 4, 0.5),
            12,
        ),
        (
            # A size counts the steps that end with it: torch's milestone is one later.
            "manual_step_learning_rate { schedule_sizes: [2, 5] learning_rates: [0.4, 0.2] }",
            lambda o: lr_scheduler.MultiStepLR(o, [3, 6], 0.5),
            10,
        ),
        (
            "cosine_annealing_learning_rate { T_max: 9 min_learning_rate: 0.1 }",
            lambda o: lr_scheduler.CosineAnnealingLR(o, 9, 0.1),
            10,
        ),
        (
            "cosine_annealing_warm_restarts_learning_rate { T_0: 3 min_learning_rate: 0.1 }",
            lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3, eta_min=0.1),
            14,
        ),
        (
            "cosine_annealing_warm_restarts_learning_rate { T_0: 2 T_mult: 2 }",
            lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2, 2),
            20,
        ),
        (
            "cosine_annealing_learning_rate { T_max: 6 warmup_size: 4 warmup_learning_rate: 0.2 }",
            lambda o: lr_scheduler.SequentialLR(
                o,
                [
                    lr_scheduler.LinearLR(o, 0.25, 1.0, 4),
                    lr_scheduler.CosineAnnealingLR(o, 6),
                ],
                [4],
            ),
            11,
        ),
    ],
)
def test_rates_are_torchs(text, make, num_steps):
    assert rates(text, num_steps) == pytest.approx(_torch_rates(make, num_steps), rel=1e-6)


@pytest.mark.parametrize("patience", [1, 2, 3])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_plateau_is_torchs(patience, mode):
    generator = torch.Generator().manual_seed(patience)
    values = torch.rand(60, generator=generator).cummax(0).values + 0.02 * torch.randn(
        60, generator=generator
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=BASE)
    # Torch's patience counts the evaluations that do nothing, ours the one that drops as well.
    reference = lr_scheduler.ReduceLROnPlateau(
        optimizer,
        mode,
        factor=0.7,
        patience=patience - 1,
        threshold=0.01,
        threshold_mode="abs",
        min_lr=0.01,
        eps=0.0,
    )
    larger = str(mode == "max").lower()
    groups = Groups(BASE)
    own = schedule(
        "reduce_on_plateau_learning_rate { metric: 'm' factor: 0.7 min_delta: 0.01 "
        f"min_learning_rate: 0.01 patience: {patience} larger_is_better: {larger} }}",
        groups,
    )
    for value in values.tolist():
        reference.step(value)
        own.observe({"m": value})
        assert groups.lr == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
    assert groups.lr < BASE
