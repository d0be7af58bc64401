"""What every two-tower model must do, checked the same way for all; batches are made by hand.

A test file of a model makes a `MatchCase` and runs `MATCH_CHECKS`.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from google.protobuf import text_format
from models_contract import (
    FEATURES,
    Rows,
    State,
    make_batch,
    make_rows,
    parse,
    script,
    train,
)

from tzrec.batch import Batch
from tzrec.datasets.data_parser import DataParser
from tzrec.features.feature import create_features
from tzrec.models.factory import create_model
from tzrec.models.match_model import MatchModel
from tzrec.models.model import PredictWrapper, TrainWrapper
from tzrec.protos.model_pb2 import ModelConfig
from tzrec.protos.pipeline_pb2 import EasyRecConfig

SOFTMAX = "losses { softmax_cross_entropy {} } "
# Columns of items, which a sampler adds rows to.
ITEM_COLUMNS = ("item", "tags", "price")
# Hard negatives: (row of the batch, running number in it).
HARD = [(1, 0), (1, 1), (4, 0)]
ABSENT = -1e32


@dataclasses.dataclass
class MatchCase:
    """A two-tower model and the vectors that it computes.

    Attributes:
        config: text of a ``ModelConfig`` without losses, with ``%s`` among the fields of the
            model.
        users: (state dict, rows, positives (B, D)) → (B, D), in NumPy.
        items: (state dict, rows) → (B, D).
        shared_tables: the towers share one embedding group, on the rows of one data group.
        user_parts: (state dict, rows) → what the exported user tower gives, if that is not
            ``users``.
    """

    config: str
    users: Callable[..., np.ndarray]
    items: Callable[[State, Rows], np.ndarray]
    shared_tables: bool = False
    user_parts: Callable[[State, Rows], np.ndarray] | None = None

    def text(self, more: str = "", objectives: str = SOFTMAX) -> str:
        return self.config % more + objectives


def in_batch(case: MatchCase, more: str = "", objectives: str = SOFTMAX) -> str:
    return case.text("in_batch_negative: true " + more, objectives)


def make_features(*, sampled: bool = False, shared: bool = False) -> list:
    paths = 'train_input_path: "" eval_input_path: "" model_dir: ""'
    config = text_format.Parse(paths + FEATURES, EasyRecConfig())
    return create_features(
        list(config.feature_configs),
        neg_fields=ITEM_COLUMNS if sampled else None,
        force_base_data_group=shared,
    )


def make_match_model(
    text: str, *, seed: int = 0, sampler: str = "", shared: bool = False, weights=None
) -> MatchModel:
    torch.manual_seed(seed)
    message = text_format.Parse(text, ModelConfig())
    features = make_features(sampled=bool(sampler), shared=shared)
    return create_model(
        message, features, ["clk"], sample_weights=weights, sampler_type=sampler or None
    )


def sampled_rows(num_rows: int, num_shared: int, *, hard: bool = True, seed: int = 0) -> Rows:
    """Rows whose item columns go on: ``[B positives | N shared | H hard]``."""
    rows = make_rows(num_rows, seed)
    more = make_rows(num_shared + len(HARD) * hard, seed + 100)
    return rows | {name: rows[name] + more[name] for name in ITEM_COLUMNS}


def sampled_batch(
    model: MatchModel, rows: Rows, *, hard: bool = True, shared: bool = False
) -> Batch:
    labels, weights = ["clk"], ["weight"]
    parser = DataParser(
        model.features, labels=labels, sample_weights=weights, force_base_data_group=shared
    )
    columns = parse(model.features, rows, labels, weights)
    if shared:
        parser._pad_rows(columns)
    batch = parser.to_batch(columns)
    if hard:
        batch.additional_infos["hard_neg_indices"] = torch.tensor(HARD, dtype=torch.int32)
    return batch


def item_part(rows: Rows, part: slice) -> Rows:
    return rows | {name: rows[name][part] for name in ITEM_COLUMNS}


def sampled_scores(users, items, num_rows: int, *, mixed: bool = False, hard: bool = True):
    """(B, C) scores in the layout of the interface, one at a time."""
    num_items = len(items) - len(HARD) * hard
    table = []
    for r, user in enumerate(users):
        first = range(num_rows) if mixed else [r]
        row = [user @ items[c] for c in [*first, *range(num_rows, num_items)]]
        if hard:
            own = {c: user @ items[num_items + h] for h, (at, c) in enumerate(HARD) if at == r}
            row += [own.get(c, ABSENT) for c in range(2)]
        table.append(row)
    return np.array(table)


def state_of(model: torch.nn.Module) -> State:
    """Weights in float64; tables by their bare name, and as ``user_tower:{name}`` …

    Those of un-pooled lookups begin with ``seq:``.
    """
    state = {}
    for name, value in model.state_dict().items():
        weights = value.double().numpy()
        for infix, prefix in ((".embedding_bags.", ""), (".embeddings.", "seq:")):
            if infix in name:
                tower, table = name.partition(".")[0], name.split(infix)[1].removesuffix(".weight")
                name = prefix + table
                state[f"{tower}:{name}"] = weights
        state[name] = weights
    return state


def own(state: State, tower: str) -> State:
    """The state with the tables of one tower by their bare name."""
    prefix = f"{tower}:"
    return state | {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def normalize(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


# --- the contract ------------------------------------------------------------------------------


def check_in_batch_formula(case: MatchCase) -> None:
    rows = make_rows(33)
    model = make_match_model(in_batch(case)).eval()
    predictions = model.predict(make_batch(model.features, rows))
    assert list(predictions) == ["similarity"]
    state = state_of(model)
    items = case.items(state, rows)
    expected = case.users(state, rows, items) @ items.T
    assert predictions["similarity"].shape == (33, 33)
    assert predictions["similarity"].dtype == torch.float32
    np.testing.assert_allclose(predictions["similarity"].detach(), expected, rtol=1e-3, atol=1e-4)


def check_sampled_formula(case: MatchCase) -> None:
    """B + N + H rows of items, in data groups of their own or padded to one."""
    for hard in (True, False):
        rows = sampled_rows(9, 5, hard=hard)
        shared = case.shared_tables
        model = make_match_model(case.text(), sampler="HardNegativeSampler", shared=shared).eval()
        batch = sampled_batch(model, rows, hard=hard, shared=shared)
        assert set(batch.sparse_features) == {"__BASE__"} | (set() if shared else {"__NEG__"})
        found = model.predict(batch)["similarity"].detach()
        state = state_of(model)
        items = case.items(state, rows)
        users = case.users(state, item_part(rows, slice(9)), items[:9])
        expected = sampled_scores(users, items, 9, hard=hard)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def check_every_parameter_learns(case: MatchCase) -> None:
    for sampler in ("", "NegativeSampler"):
        shared = case.shared_tables and bool(sampler)
        text = case.text() if sampler else in_batch(case)
        model = make_match_model(text, sampler=sampler, shared=shared)
        if sampler:
            batch = sampled_batch(model, sampled_rows(128, 30), shared=shared)
        else:
            batch = make_batch(model.features, make_rows(256))
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        train(model, batch, steps=1)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert (parameter.grad != 0).any(), name
            assert not torch.equal(parameter, before[name]), name


def check_overfits(case: MatchCase) -> None:
    """Twelve users learn their twelve items."""
    rows = make_rows(12) | {"user": list(range(12)), "item": list(range(12))}
    metrics = "metrics { recall_at_k { top_k: 1 } }"
    model = make_match_model(in_batch(case, objectives=SOFTMAX + metrics))
    batch = make_batch(model.features, rows)
    train(model, batch, steps=120, lr=0.03)
    model.eval()
    model.update_metric(model.predict(batch), batch)
    assert float(model.compute_metric()["recall@1"]) > 0.9


def check_same_seed_same_bits(case: MatchCase) -> None:
    runs = []
    for seed in (1, 1, 2):
        model = make_match_model(in_batch(case), seed=seed)
        batch = make_batch(model.features, make_rows(64))
        runs.append((train(model, batch, steps=3), model.state_dict()))
    (first, a), (second, b), (third, _) = runs
    assert first == second != third
    assert all(torch.equal(a[name], b[name]) for name in a)


def check_save_and_load(case: MatchCase) -> None:
    model, other = (make_match_model(in_batch(case), seed=seed) for seed in (1, 2))
    batch = make_batch(model.features, make_rows(64))
    train(model, batch, steps=2)
    expected = model.eval().predict(batch)["similarity"]
    assert not torch.equal(other.eval().predict(batch)["similarity"], expected)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.predict(batch)["similarity"], expected)


def check_bf16(case: MatchCase) -> None:
    model = make_match_model(in_batch(case))
    batch = make_batch(model.features, make_rows(64))
    model.eval()
    exact, _ = TrainWrapper(model)(batch)
    loss, (losses, predictions, _) = TrainWrapper(model, mixed_precision="BF16")(batch)
    assert {v.dtype for v in [*losses.values(), *predictions.values()]} == {torch.float32}
    assert not torch.equal(loss, exact)
    torch.testing.assert_close(loss, exact, rtol=0.05, atol=0.02)
    model.train()
    found = train(make_match_model(in_batch(case)), batch, steps=3, mixed_precision="BF16")
    expected = train(make_match_model(in_batch(case)), batch, steps=3)
    np.testing.assert_allclose(found, expected, rtol=0.1)


def check_one_row(case: MatchCase) -> None:
    """A batch of one row trains, also when all its histories are empty."""
    model = make_match_model(in_batch(case))
    for history in (True, False):
        rows = make_rows(1, seed=3)
        rows["click__item"] = [[7, 7]] if history else [[]]
        rows["click__price"] = [[0.5, 0.1]] if history else [[]]
        loss, _ = TrainWrapper(model)(make_batch(model.features, rows))
        loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def check_parts(case: MatchCase) -> None:
    """The exported towers give the model's vectors, in any batch, eager and scripted."""
    model = make_match_model(in_batch(case))
    train(model, make_batch(model.features, make_rows(64)), steps=2)
    model.eval()
    rows = make_rows(9, seed=5)
    rows["click__item"][0] = rows["click__price"][0] = []
    state = state_of(model)
    expected = {"item": case.items(state, rows)}
    expected["user"] = (case.user_parts or case.users)(state, rows)
    parts = model.export_parts()
    assert list(parts) == ["user", "item"]
    for name, part in parts.items():
        assert {feature.name for feature in part.features} < {f.name for f in model.features}
        assert set(part.state_dict()) <= {*model.state_dict()} or case.shared_tables
        _check_part(part, f"{name}_tower_emb", rows, expected[name])


def _check_part(part, key: str, rows: Rows, expected: np.ndarray) -> None:
    features = list(part.features)
    scripted = script(part)
    batch = DataParser(features).to_batch(parse(features, rows))
    eager, _ = PredictWrapper(part)(batch)
    assert list(eager) == [key]
    assert eager[key].dtype == torch.float32
    np.testing.assert_allclose(eager[key], expected, rtol=1e-3, atol=1e-5)
    found = scripted(parse(features, rows))[key]
    torch.testing.assert_close(found, eager[key], atol=1e-6, rtol=0)
    for r in range(len(rows["user"])):
        one = {name: column[r : r + 1] for name, column in rows.items()}
        alone = scripted(parse(features, one))[key]
        torch.testing.assert_close(alone[0], found[r], atol=2e-6, rtol=0)


MATCH_CHECKS = [
    check_in_batch_formula,
    check_sampled_formula,
    check_every_parameter_learns,
    check_overfits,
    check_same_seed_same_bits,
    check_save_and_load,
    check_bf16,
    check_one_row,
    check_parts,
]
