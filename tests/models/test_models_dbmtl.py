"""DBMTL: contract of the house, and each part against its formula."""

import numpy as np
import pytest
from models_contract import group, ids, linear, make_model, mlp, price, state_of
from multi_task_contract import CHECKS, CTR, KIND, WATCH, MultiCase

from tzrec.errors import ConfigError

ALL = group("all", "user item tags price")
HIDDEN = "hidden_units: [16]"


def features(state, rows):
    return np.concatenate([*ids(state, rows, "user item tags"), price(rows)], 1)


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def mixture(state, x, task, *, num_expert, gate_mlp):
    """MMoE by its definition."""
    h = mlp(state, f"bottom.mmoe.gates.{task}.mlp", x) if gate_mlp else x
    weights = softmax(linear(state, f"bottom.mmoe.gates.{task}.linear", h))
    experts = [mlp(state, f"bottom.mmoe.experts.{e}", x) for e in range(num_expert)]
    return sum(weights[:, [e]] * experts[e] for e in range(num_expert))


def mask_net(state, x):
    def norm(name, x):
        x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    blocks = []
    for i in range(2):
        name = f"bottom.mask_net.mask_blocks.{i}"
        mask = np.maximum(linear(state, f"{name}.mask_generator.0", x), 0)
        mask = linear(state, f"{name}.mask_generator.2", mask)
        hidden = linear(state, f"{name}.hidden_layer.0", norm("bottom.mask_net.ln_emb", x) * mask)
        blocks.append(np.maximum(norm(f"{name}.hidden_layer.1", hidden), 0))
    return np.concatenate(blocks, 1)


def plain(state, rows):
    """No part but the towers, as independent ones."""
    x = features(state, rows)
    return {
        "logits_ctr": linear(state, "outputs.ctr", mlp(state, "task_mlps.ctr", x))[:, 0],
        "y_watch": linear(state, "outputs.watch", mlp(state, "task_mlps.watch", x))[:, 0],
    }


def related(state, rows):
    x = mlp(state, "bottom.bottom_mlp", features(state, rows))
    ctr = mlp(state, "task_mlps.ctr", x)
    watch = mlp(state, "relation_mlps.watch", np.concatenate([x, ctr], 1))
    kind = np.concatenate([mlp(state, "task_mlps.kind", x), ctr, watch], 1)
    kind = mlp(state, "relation_mlps.kind", kind)
    return {
        "logits_ctr": linear(state, "outputs.ctr", ctr)[:, 0],
        "y_watch": linear(state, "outputs.watch", watch)[:, 0],
        "logits_kind": linear(state, "outputs.kind", kind),
    }


def everything(state, rows):
    x = mlp(state, "bottom.bottom_mlp", mask_net(state, features(state, rows)))
    mixed = [mixture(state, x, t, num_expert=2, gate_mlp=True) for t in range(2)]
    ctr = mlp(state, "task_mlps.ctr", mixed[0])
    watch = np.concatenate([mlp(state, "task_mlps.watch", mixed[1]), ctr], 1)
    return {
        "logits_ctr": linear(state, "outputs.ctr", ctr)[:, 0],
        "y_watch": linear(state, "outputs.watch", mlp(state, "relation_mlps.watch", watch))[:, 0],
    }


def silent(state, rows):
    """The first tower has no loss: it only feeds the second."""
    x = features(state, rows)
    watch = np.concatenate([x, mlp(state, "task_mlps.seen", x)], 1)
    return {
        "y_watch": linear(state, "outputs.watch", mlp(state, "relation_mlps.watch", watch))[:, 0]
    }


MLP, RELATION = f"mlp {{ {HIDDEN} }}", f"relation_mlp {{ {HIDDEN} }}"
MASK = "mask_net { n_mask_blocks: 2 mask_block { hidden_dim: 12 } }"
EXPERTS = f"expert_mlp {{ {HIDDEN} }} gate_mlp {{ hidden_units: 6 }} num_expert: 2"
CASES = {
    "plain": MultiCase(
        ALL + f"dbmtl {{ task_towers {{ {CTR} {MLP} }} task_towers {{ {WATCH} {MLP} }} }}", plain
    ),
    "related": MultiCase(
        ALL
        + f"""dbmtl {{ bottom_mlp {{ {HIDDEN} }}
        task_towers {{ {CTR} {MLP} }}
        task_towers {{ {WATCH} relation_tower_names: "ctr" {RELATION} }}
        task_towers {{ {KIND} {MLP} relation_tower_names: ["ctr", "watch"] {RELATION} }} }}""",
        related,
    ),
    "everything": MultiCase(
        ALL
        + f"""dbmtl {{ {MASK} bottom_mlp {{ {HIDDEN} }} {EXPERTS}
        task_towers {{ {CTR} {MLP} }}
        task_towers {{ {WATCH} {MLP} relation_tower_names: "ctr" {RELATION} }} }}""",
        everything,
    ),
    "silent_tower": MultiCase(
        ALL
        + f"""dbmtl {{ task_towers {{ tower_name: "seen" {MLP} }}
        task_towers {{ {WATCH} relation_tower_names: "seen" {RELATION} }} }}""",
        silent,
    ),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_contract(name, check):
    check(CASES[name])


def test_what_a_later_task_learns_reaches_the_earlier_one():
    case = CASES["related"]
    model = case.model()
    batch = case.batch(model, case.rows(8))
    model.predict(batch)["logits_kind"].sum().backward()
    assert model.task_mlps["ctr"].mlp[0].perceptron[0].weight.grad.abs().sum() > 0
    assert model.outputs["ctr"].weight.grad is None


def test_relations_without_a_relation_mlp_change_nothing():
    towers = "task_towers {{ {0} }} task_towers {{ {1} {2} }}"
    texts = [
        ALL + f"dbmtl {{ {towers.format(CTR, WATCH, more)} }}"
        for more in ("", 'relation_tower_names: "ctr"')
    ]
    first, second = [state_of(make_model(text, labels=["clk", "watch"])) for text in texts]
    assert list(first) == list(second)
    assert all((first[name] == second[name]).all() for name in first)


@pytest.mark.parametrize("name", ["watch", "kind", "ctrr"])
def test_relations_go_up(name):
    text = f"""dbmtl {{ task_towers {{ {CTR} }}
        task_towers {{ {WATCH} relation_tower_names: "{name}" {RELATION} }}
        task_towers {{ {KIND} }} }}"""
    near = "; did you mean 'ctr'" if name == "ctrr" else ""
    said = f"reads tower '{name}', which does not stand before it{near}"
    with pytest.raises(ConfigError, match=said):
        make_model(ALL + text, labels=["clk", "watch", "kind"])
