"""DC2VR: contract of the house, and the intervention against its formula."""

import numpy as np
import pytest
import torch
from models_contract import group, ids, linear, make_model, mlp, price
from multi_task_contract import CHECKS, CTR, KIND, WATCH, MultiCase

from tzrec.deploy.torchscript import script_model
from tzrec.errors import ConfigError
from tzrec.models.model import ScriptWrapper

ALL = group("all", "user item tags price")
HIDDEN = "hidden_units: [16]"


def features(state, rows):
    return np.concatenate([*ids(state, rows, "user item tags"), price(rows)], 1)


def gram_schmidt(weight):
    basis = []
    for column in weight.T:
        for found in basis:
            column = column - found * (found @ column)
        basis.append(column / np.linalg.norm(column))
    return np.stack(basis, 1)


def intervene(state, task, base, *sources):
    r_b = gram_schmidt(state[f"interventions.{task}.base_basis.weight"])
    r_s = gram_schmidt(state[f"interventions.{task}.source_basis.weight"])
    return base + (base @ r_b - np.concatenate(sources, 1) @ r_s) @ r_b.T


def chain(state, rows):
    x = mlp(state, "bottom.bottom_mlp", features(state, rows))
    ctr = mlp(state, "task_mlps.ctr", x)
    watch = intervene(state, "watch", x, ctr)
    kind = intervene(state, "kind", mlp(state, "task_mlps.kind", x), ctr, watch)
    return {
        "logits_ctr": linear(state, "outputs.ctr", ctr)[:, 0],
        "y_watch": linear(state, "outputs.watch", watch)[:, 0],
        "logits_kind": linear(state, "outputs.kind", kind),
    }


def with_experts(state, rows):
    x = features(state, rows)
    experts = [mlp(state, f"bottom.mmoe.experts.{e}", x) for e in range(2)]
    mixed = []
    for task in range(2):
        scores = np.exp(linear(state, f"bottom.mmoe.gates.{task}.linear", x))
        weights = scores / scores.sum(1, keepdims=True)
        mixed.append(sum(weights[:, [e]] * experts[e] for e in range(2)))
    return {
        "logits_ctr": linear(state, "outputs.ctr", mixed[0])[:, 0],
        "y_watch": linear(state, "outputs.watch", intervene(state, "watch", *mixed[::-1]))[:, 0],
    }


def no_intervention(state, rows):
    x = features(state, rows)
    return {
        "logits_ctr": linear(state, "outputs.ctr", mlp(state, "task_mlps.ctr", x))[:, 0],
        "y_watch": linear(state, "outputs.watch", mlp(state, "task_mlps.watch", x))[:, 0],
    }


MLP = f"mlp {{ {HIDDEN} }}"
NAMES = "intervention_tower_names"
RANK = "low_rank_dim: 3 dropout_ratio: 0"
CASES = {
    "chain": MultiCase(
        ALL
        + f"""dc2vr {{ bottom_mlp {{ {HIDDEN} }}
        task_towers {{ {CTR} {MLP} {RANK} }}
        task_towers {{ {WATCH} {NAMES}: "ctr" {RANK} }}
        task_towers {{ {KIND} {MLP} {NAMES}: ["ctr", "watch"] {RANK} }} }}""",
        chain,
    ),
    "with_experts": MultiCase(
        ALL
        + f"""dc2vr {{ expert_mlp {{ {HIDDEN} }} num_expert: 2
        task_towers {{ {CTR} {RANK} }} task_towers {{ {WATCH} {NAMES}: "ctr" {RANK} }} }}""",
        with_experts,
    ),
    "no_intervention": MultiCase(
        ALL
        + f"""dc2vr {{ task_towers {{ {CTR} {MLP} {RANK} }}
        task_towers {{ {WATCH} {MLP} {RANK} }} }}""",
        no_intervention,
    ),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_contract(name, check):
    check(CASES[name])


def test_the_earlier_task_does_not_learn_from_its_intervention():
    case = CASES["chain"]
    model = case.model()
    batch = case.batch(model, case.rows(8))
    model.predict(batch)["y_watch"].sum().backward()
    assert model.bottom.bottom_mlp.mlp[0].perceptron[0].weight.grad.abs().sum() > 0
    assert model.task_mlps["ctr"].mlp[0].perceptron[0].weight.grad is None


def test_bases_are_constants_when_served():
    model = CASES["chain"].model()
    model.set_is_inference(True)
    code = script_model(ScriptWrapper(model).eval()).code
    assert "interventions_watch_dropout" in code
    assert "qr" not in code
    assert "basis" not in code


def test_dropout_is_of_the_moved_representation():
    text = CASES["chain"].config.replace("dropout_ratio: 0", "")
    model = make_model(text, labels=CASES["chain"].labels)
    assert [move.dropout.p for move in model.interventions.values()] == [0.1, 0.1]
    batch = CASES["chain"].batch(model, CASES["chain"].rows(64))
    runs = [model.predict(batch) for _ in range(2)]
    assert torch.equal(runs[0]["logits_ctr"], runs[1]["logits_ctr"])
    assert not torch.equal(runs[0]["y_watch"], runs[1]["y_watch"])
    model.eval()
    assert torch.equal(model.predict(batch)["y_watch"], model.predict(batch)["y_watch"])


def test_low_rank_dim_is_low():
    text = CASES["chain"].config.replace("low_rank_dim: 3", "low_rank_dim: 16")
    with pytest.raises(ConfigError, match="low_rank_dim is 16, it must be at least 1 and below 16"):
        make_model(text, labels=CASES["chain"].labels)


def test_interventions_go_up():
    towers = f"task_towers {{ {CTR} {RANK} {NAMES}: 'watch' }} task_towers {{ {WATCH} {RANK} }}"
    with pytest.raises(ConfigError, match="'ctr' reads tower 'watch', which does not stand before"):
        make_model(ALL + f"dc2vr {{ {towers} }}", labels=["clk", "watch"])
