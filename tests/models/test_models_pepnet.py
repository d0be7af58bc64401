"""PEPNet: contract of the house, gates against their formula, and the row's own domain."""

import numpy as np
import pytest
import torch
from models_contract import group, ids, linear, make_model, mlp, price
from multi_task_contract import CHECKS, CTR, KIND, LABELS, WATCH, MultiCase
from sklearn.metrics import roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits

from tzrec.errors import ConfigError, DataError

ALL = group("all", "user item tags price")
DOMAIN = group("domain", "tags")
UIA = group("uia", "user item")
HIDDEN = "hidden_units: [16]"
MLP = f"mlp {{ {HIDDEN} }}"
DOMAINS = 'domain_input_name: "domain" task_domain_num: 3'


def gate(state, name, x, gamma):
    hidden = np.maximum(linear(state, f"{name}.hidden", x), 0)
    return gamma / (1 + np.exp(-linear(state, f"{name}.linear", hidden)))


def oracle(*, epnet=0.0, ppnet=0.0, layers=(), domains=1, names=("ctr", "watch"), tower_mlp=True):
    """Formula; ``epnet`` and ``ppnet`` are gammas, 0 for no gates."""

    def compute(state, rows):
        x = np.concatenate([*ids(state, rows, "user item tags"), price(rows)], 1)
        if epnet:
            (domain,) = ids(state, rows, "tags")
            x = x * gate(state, "epnet.gate", np.concatenate([domain, x], 1), epnet)
        known = np.concatenate([*ids(state, rows, "user item"), x], 1)
        result = {}
        for t, task in enumerate(names):
            h = x
            for i in range(len(layers)):
                h = np.maximum(linear(state, f"ppnet.layers.{t}.{i}.perceptron.0", h), 0)
                h = h * (gate(state, f"ppnet.gates.{t}.{i}", known, ppnet) if ppnet else 1)
            for domain in range(domains):
                tower = f"domain_towers.{domain}.{task}"
                y = mlp(state, f"{tower}.tower_mlp", h) if tower_mlp else h
                y = linear(state, f"{tower}.linear", y)
                end = f"_{domain}" if domains > 1 else ""
                kind = "y_watch" if task == "watch" else f"logits_{task}"
                result[kind + end] = y if task == "kind" else y[:, 0]
        return result

    return compute


def pepnet(fields, towers, mlp_text=MLP):
    return f"pepnet {{ {fields} {' '.join(f'task_towers {{ {t} {mlp_text} }}' for t in towers)} }}"


CASES = {
    "no_gates": MultiCase(ALL + pepnet("", [CTR, WATCH]), oracle()),
    "epnet": MultiCase(
        DOMAIN + ALL + pepnet("epnet_hidden_unit: 5 epnet_gamma: 1.5", [CTR, WATCH]),
        oracle(epnet=1.5),
    ),
    "everything": MultiCase(
        ALL
        + DOMAIN
        + UIA
        + pepnet(f"ppnet_hidden_units: [24, 16] ppnet_gamma: 3 {DOMAINS}", [CTR, WATCH], ""),
        oracle(epnet=2, ppnet=3, layers=[24, 16], domains=3, tower_mlp=False),
        labels=(*LABELS, "domain"),
    ),
    "layers_without_gates": MultiCase(
        ALL + pepnet("ppnet_hidden_units: 16", [CTR, WATCH], ""),
        oracle(layers=[16], tower_mlp=False),
    ),
    "several_classes": MultiCase(
        ALL + pepnet(DOMAINS, [CTR, KIND]),
        oracle(domains=3, names=("ctr", "kind")),
        labels=(*LABELS, "domain"),
    ),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_contract(name, check):
    check(CASES[name])


def test_hidden_sizes_of_the_gates():
    both = ALL + DOMAIN + UIA
    text = both + pepnet("epnet_hidden_unit: 5 ppnet_hidden_units: [24, 16]", [CTR, WATCH])
    model = make_model(text, labels=LABELS)
    assert model.epnet.gate.hidden.weight.shape == (5, 8 + 25)
    assert [g.hidden.weight.shape for g in model.ppnet.gates[1]] == [(24, 41), (16, 41)]
    model = make_model(both + pepnet("", [CTR, WATCH]), labels=LABELS)
    assert model.epnet.gate.hidden.weight.shape == (25, 8 + 25)
    assert model.ppnet is None


def test_gates_do_not_move_the_shared_embedding():
    """Without the stop of the gradient it would learn through the gates, too."""
    case = CASES["everything"]
    model = case.model()
    e = torch.ones(4, 25, requires_grad=True)
    domain, uia = torch.ones(4, 8), torch.ones(4, 16)
    (x,) = torch.autograd.grad(model.epnet(e, domain).sum(), e)
    known = torch.cat([domain, torch.ones(4, 25)], 1)
    torch.testing.assert_close(x, model.epnet.gate(known))
    for layer in model.ppnet.layers[0]:
        torch.nn.init.zeros_(layer.perceptron[0].weight)
    (x,) = torch.autograd.grad(model.ppnet(e, uia)[0].sum(), e)
    assert (x == 0).all()


def test_activation_and_dropout_of_ppnet():
    text = ALL + UIA + pepnet('ppnet_hidden_units: [8, 8] ppnet_activation: "nn.Tanh"', [CTR])
    model = make_model(text, labels=LABELS)
    kinds = [type(layer.perceptron[1]) for layer in model.ppnet.layers[0]]
    assert kinds == [torch.nn.Tanh] * 2
    for ratios, expected in (("", [0, 0]), (".5", [0.5, 0.5]), ("[.1, .2]", [0.1, 0.2])):
        more = f"ppnet_dropout_ratio: {ratios}" if ratios else ""
        text = ALL + UIA + pepnet(f"ppnet_hidden_units: [8, 8] {more}", [CTR])
        model = make_model(text, labels=LABELS)
        assert [dropout.p for dropout in model.ppnet.dropouts] == expected
    text = ALL + pepnet("ppnet_hidden_units: [8, 8] ppnet_dropout_ratio: [0, 0, 0]", [CTR])
    with pytest.raises(ConfigError, match="ppnet_dropout_ratio has 3 values for 2"):
        make_model(text, labels=LABELS)


def metrics(text):
    return text + " metrics { auc { thresholds: 100000 } } train_metrics { auc {} }"


def test_losses_and_metrics_are_of_the_rows_own_domain():
    text = ALL + pepnet(DOMAINS, [metrics(CTR), WATCH + " metrics { mean_squared_error {} }"])
    case = MultiCase(text, oracle(), labels=(*LABELS, "domain"))
    model = case.model()
    rows = case.rows(200)
    batch = case.batch(model, rows)
    model.init_loss()
    model.init_metric()
    predictions = model.predict(batch)
    losses = model.loss(predictions, batch)
    model.update_metric(predictions, batch, losses)
    model.update_train_metric(predictions, batch)
    domain, every = np.array(rows["domain"]), range(200)
    own = {}
    for kind in ("probs_ctr", "y_watch"):
        each = np.stack([predictions[f"{kind}_{i}"].detach().numpy() for i in range(3)])
        own[kind] = each[domain, every]
    clk, watch = np.array(rows["clk"]), np.array(rows["watch"])
    p = own["probs_ctr"].astype(np.float64)
    bce = -np.where(clk == 1, np.log(p), np.log(1 - p)).mean()
    mse = ((own["y_watch"] - watch) ** 2).mean()
    assert losses["binary_cross_entropy_ctr"].item() == pytest.approx(bce, rel=1e-5)
    assert losses["l2_loss_watch"].item() == pytest.approx(mse, rel=1e-5)
    values = model.compute_metric()
    assert set(values) == {
        "auc_ctr", "mean_squared_error_watch", "binary_cross_entropy_ctr", "l2_loss_watch"
    }  # fmt: skip
    assert values["auc_ctr"].item() == pytest.approx(roc_auc_score(clk, p), abs=1e-3)
    assert values["mean_squared_error_watch"].item() == pytest.approx(mse, rel=1e-5)
    assert list(model.compute_train_metric()) == ["auc_ctr"]


def test_a_domain_learns_from_its_rows_only():
    case = CASES["several_classes"]
    model = case.model()
    rows = case.rows(30)
    rows["domain"] = [0, 2] * 15
    batch = case.batch(model, rows)
    model.init_loss()
    sum(model.loss(model.predict(batch), batch).values()).backward()
    moved = [
        all((p.grad != 0).any() for p in towers.parameters()) for towers in model.domain_towers
    ]
    assert moved == [True, False, True]
    assert all((p.grad == 0).all() for p in model.domain_towers[1].parameters())


@pytest.mark.parametrize("wrong", [3, -1, 0.5])
def test_domains_are_checked(wrong):
    case = CASES["several_classes"]
    model = case.model()
    rows = case.rows(5)
    rows["domain"] = [0, 1, 2, wrong, 1]
    batch = case.batch(model, rows)
    model.init_loss()
    with pytest.raises(DataError, match=f"domain 'domain' is {wrong} in row 3 .* from 0 to 2"):
        model.loss(model.predict(batch), batch)


def test_the_domain_is_a_label():
    text = ALL + pepnet(DOMAINS.replace('"domain"', '"domian"'), [CTR])
    model = make_model(text, labels=(*LABELS, "domain"))
    with pytest.raises(ConfigError, match=r"'domian', which is not in label_fields.*'domain'"):
        model.init_loss()
    with pytest.raises(ConfigError, match="task_domain_num is 3, and domain_input_name is empty"):
        make_model(ALL + pepnet("task_domain_num: 3", [CTR]), labels=LABELS)


def test_one_domain_needs_no_column():
    text = ALL + pepnet('domain_input_name: "domain" task_domain_num: 1', [CTR])
    case = MultiCase(text, oracle(), labels=("clk",))
    model = case.model()
    batch = case.batch(model, case.rows(4))
    model.init_loss()
    predictions = model.predict(batch)
    assert list(predictions) == ["logits_ctr", "probs_ctr"]
    assert list(model.loss(predictions, batch)) == ["binary_cross_entropy_ctr"]


def test_towers_named_like_domains_do_not_mix():
    """Tower "a" of domain 0 is logits_a_0; so are the row's own of tower "a_0"."""
    towers = [CTR.replace('"ctr"', '"a"'), CTR.replace('"ctr"', '"a_0"')]
    case = MultiCase(ALL + pepnet(DOMAINS, towers), oracle(), labels=(*LABELS, "domain"))
    model = case.model()
    batch = case.batch(model, case.rows(8))
    model.init_loss()
    predictions = model.predict(batch)
    assert len(predictions) == 2 * 2 * 3
    losses = model.loss(predictions, batch)
    domain = batch.labels["domain"].long()
    for name in ("a", "a_0"):
        own = torch.stack([predictions[f"logits_{name}_{i}"] for i in range(3)])[domain, range(8)]
        loss = binary_cross_entropy_with_logits(own, batch.labels["clk"].float())
        torch.testing.assert_close(losses[f"binary_cross_entropy_{name}"], loss)
