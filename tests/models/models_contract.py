"""What every model must do, checked the same way for all (house style 6).

A test file of a model makes a `Case` and calls `check_contract`.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import torch
from google.protobuf import text_format

from tzrec.batch import Batch
from tzrec.datasets.data_parser import DataParser
from tzrec.deploy.torchscript import CpuAutocast, script_model
from tzrec.features.feature import create_features
from tzrec.models.factory import create_model
from tzrec.models.model import BaseModel, PredictWrapper, ScriptWrapper, TrainWrapper
from tzrec.protos.model_pb2 import ModelConfig
from tzrec.protos.pipeline_pb2 import EasyRecConfig

_ITEM = """id_feature { feature_name: "item" expression: "item:item" num_buckets: 30
  embedding_dim: 8 embedding_name: "item_emb" }"""
FEATURES = f"""
feature_configs {{ id_feature {{ feature_name: "user" expression: "user:user"
  num_buckets: 40 embedding_dim: 8 }} }}
feature_configs {{ {_ITEM} }}
feature_configs {{ id_feature {{ feature_name: "tags" expression: "item:tags"
  num_buckets: 6 embedding_dim: 8 pooling: "mean" }} }}
feature_configs {{ raw_feature {{ feature_name: "price" expression: "item:price" }} }}
feature_configs {{
  sequence_feature {{
    sequence_name: "click" sequence_length: 6 sequence_delim: ";"
    features {{ {_ITEM} }}
    features {{ raw_feature {{ feature_name: "price" expression: "item:price" }} }}
  }}
}}
"""
LABELS = ["clk", "watch", "kind"]
BCE = "losses { binary_cross_entropy {} }"

# Rows: column → a value (or list) per row.
Rows = dict[str, list]
State = dict[str, np.ndarray]


def group(name: str, features: str, kind: str = "DEEP", more: str = "") -> str:
    """The text of a feature group; ``features`` are separated by blanks."""
    names = ", ".join(f'"{feature}"' for feature in features.split())
    return (
        f'feature_groups {{ group_name: "{name}" feature_names: [{names}] '
        f"group_type: {kind} {more} }} "
    )


@dataclasses.dataclass
class Case:
    """A model config and what it computes.

    Attributes:
        config: text of a ``ModelConfig`` without losses.
        oracle: (state dict, rows) → (B,) or (B, C) logits, in NumPy.
        suffix: ends the names of the predictions that the oracle computes.
    """

    config: str
    oracle: Callable[[State, Rows], np.ndarray]
    suffix: str = ""

    def predict(self, model: BaseModel, batch: Batch) -> dict[str, torch.Tensor]:
        """The predictions that the oracle computes, without the suffix."""
        found = model.predict(batch)
        return {n.removesuffix(self.suffix): v for n, v in found.items() if n.endswith(self.suffix)}


def make_rows(num_rows: int, seed: int = 0) -> Rows:
    """Random rows; some have no tags, no history, or a long one."""
    rng = np.random.default_rng(seed)
    tags = [list(rng.choice(6, rng.integers(0, 4), replace=False)) for _ in range(num_rows)]
    history = [list(rng.integers(0, 30, n)) for n in rng.integers(0, 7, num_rows)]
    return {
        "user": list(rng.integers(0, 40, num_rows)),
        "item": list(rng.integers(0, 30, num_rows)),
        "tags": tags,
        "price": list(rng.normal(size=num_rows).astype(np.float32)),
        "click__item": history,
        "click__price": [list(rng.random(len(h)).round(3)) for h in history],
        "clk": list(rng.integers(0, 2, num_rows)),
        "watch": list(rng.normal(size=num_rows).astype(np.float32)),
        "kind": list(rng.integers(0, 3, num_rows)),
        "weight": list(rng.random(num_rows).astype(np.float32)),
    }


def make_features() -> list:
    paths = 'train_input_path: "" eval_input_path: "" model_dir: ""'
    config = text_format.Parse(paths + FEATURES, EasyRecConfig())
    return create_features(list(config.feature_configs))


def parse(features: list, rows: Rows, labels=(), weights=()) -> dict[str, torch.Tensor]:
    """Runs rows through the real parser."""
    columns = dict(rows)
    columns["tags"] = ["\x03".join(map(str, tags)) for tags in rows["tags"]]
    for name in ("click__item", "click__price"):
        columns[name] = [";".join(map(str, steps)) for steps in rows[name]]
    arrays = {name: pa.array(column) for name, column in columns.items()}
    return DataParser(features, labels=list(labels), sample_weights=list(weights)).parse(arrays)


def make_batch(features: list, rows: Rows, labels=LABELS, weights=("weight",)) -> Batch:
    parser = DataParser(features, labels=list(labels), sample_weights=list(weights))
    return parser.to_batch(parse(features, rows, labels, weights))


def make_model(config: str, *, seed: int = 0, labels=("clk",), weights=None) -> BaseModel:
    torch.manual_seed(seed)
    message = text_format.Parse(config, ModelConfig())
    return create_model(message, make_features(), list(labels), sample_weights=weights)


def state_of(model: torch.nn.Module) -> State:
    """Weights in float64; embedding tables by their bare name, WIDE ones end in ``_wide``."""
    state = {}
    for name, value in model.state_dict().items():
        for infix, prefix in ((".embedding_bags.", ""), (".embeddings.", "seq:")):
            if infix in name:
                name = prefix + name.split(infix)[1].removesuffix(".weight")
        state[name] = value.double().numpy()
    return state


def train(
    model: BaseModel, batch: Batch, *, steps: int, lr: float = 0.02, mixed_precision: str = ""
) -> list[float]:
    """Trains on one batch with Adam; returns the losses."""
    wrapper = TrainWrapper(model, mixed_precision=mixed_precision)
    optimizer = torch.optim.Adam(wrapper.parameters(), lr=lr)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss, _ = wrapper(batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# --- the contract ------------------------------------------------------------------------------


def check_formula_and_keys(case: Case) -> None:
    rows = make_rows(33)
    model = make_model(case.config + BCE).eval()
    predictions = case.predict(model, make_batch(model.features, rows))
    assert list(predictions) == ["logits", "probs"]
    expected = case.oracle(state_of(model), rows)
    assert predictions["logits"].shape == predictions["probs"].shape == expected.shape == (33,)
    np.testing.assert_allclose(predictions["logits"].detach(), expected, rtol=1e-4, atol=1e-5)
    probs = 1 / (1 + np.exp(-expected))
    np.testing.assert_allclose(predictions["probs"].detach(), probs, rtol=1e-4, atol=1e-6)


def check_several_classes(case: Case) -> None:
    rows = make_rows(17)
    model = make_model(
        case.config + "num_class: 3 losses { softmax_cross_entropy {} }", labels=["kind"]
    )
    batch = make_batch(model.features, rows)
    predictions = case.predict(model, batch)
    assert predictions["logits"].shape == predictions["probs"].shape == (17, 3)
    np.testing.assert_allclose(predictions["probs"].detach().sum(1), np.ones(17), rtol=1e-6)
    expected = case.oracle(state_of(model), rows)
    np.testing.assert_allclose(predictions["logits"].detach(), expected, rtol=1e-4, atol=1e-5)
    losses = train(model, batch, steps=5)
    assert losses[-1] < losses[0]


def check_every_parameter_learns(case: Case) -> None:
    model = make_model(case.config + BCE)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert before
    train(model, make_batch(model.features, make_rows(256)), steps=1)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad != 0).any(), name
        assert not torch.equal(parameter, before[name]), name


def check_overfits(case: Case) -> None:
    model = make_model(case.config + BCE)
    batch = make_batch(model.features, make_rows(256))
    losses = train(model, batch, steps=150)
    assert losses[0] > 0.5
    assert losses[-1] < 0.05


def check_same_seed_same_bits(case: Case) -> None:
    runs = []
    for seed in (1, 1, 2):
        model = make_model(case.config + BCE, seed=seed)
        batch = make_batch(model.features, make_rows(64))
        runs.append((train(model, batch, steps=3), model.state_dict()))
    (first, a), (second, b), (third, _) = runs
    assert first == second != third
    assert all(torch.equal(a[name], b[name]) for name in a)


def check_save_load(case: Case, path) -> None:
    model = make_model(case.config + BCE, seed=1)
    batch = make_batch(model.features, make_rows(64))
    train(model, batch, steps=2)
    torch.save(model.state_dict(), path)
    other = make_model(case.config + BCE, seed=2)
    assert not torch.equal(_logits(case, model, batch), _logits(case, other, batch))
    other.load_state_dict(torch.load(path, weights_only=True))
    assert torch.equal(_logits(case, model, batch), _logits(case, other, batch))


def _logits(case: Case, model: BaseModel, batch: Batch) -> torch.Tensor:
    return case.predict(model.eval(), batch)["logits"]


def script(model: BaseModel) -> torch.jit.ScriptModule:
    """Puts the model in inference mode and compiles it as the export does."""
    model.set_is_inference(True)
    return script_model(ScriptWrapper(model).eval()).module


def check_eager_equals_scripted(case: Case) -> None:
    model = make_model(case.config + BCE)
    train(model, make_batch(model.features, make_rows(64)), steps=2)
    scripted = script(model)
    # Other numbers of rows than were traced (none were), a single one, no history at all.
    for num_rows in (64, 1, 7):
        rows = make_rows(num_rows, seed=num_rows)
        if num_rows == 7:
            rows["click__item"] = rows["click__price"] = [[]] * 7
        batch = make_batch(model.features, rows)
        eager, _ = PredictWrapper(model)(batch)
        for device in ({}, {"device": torch.device("cpu")}):
            found = scripted(parse(model.features, rows), **device)
            assert list(found) == list(eager)
            for name, value in eager.items():
                torch.testing.assert_close(found[name], value, atol=1e-6, rtol=0)
    mixed = torch.jit.script(CpuAutocast(scripted, "BF16"))(parse(model.features, rows))
    for name, value in eager.items():
        torch.testing.assert_close(mixed[name], value, atol=0.05, rtol=0.05)


def check_bf16(case: Case) -> None:
    """Under autocast the losses are about the same, in float32, and every gradient is finite."""
    model = make_model(case.config + BCE)
    batch = make_batch(model.features, make_rows(64))
    model.eval()
    exact, _ = TrainWrapper(model)(batch)
    loss, (losses, predictions, _) = TrainWrapper(model, mixed_precision="BF16")(batch)
    assert {v.dtype for v in [*losses.values(), *predictions.values()]} == {torch.float32}
    torch.testing.assert_close(loss, exact, rtol=0.05, atol=0.02)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def check_one_row(case: Case) -> None:
    """A batch of one row trains, also when all its histories are empty."""
    model = make_model(case.config + BCE)
    for history in (True, False):
        rows = make_rows(1, seed=3)
        rows["click__item"] = [[7, 7]] if history else [[]]
        rows["click__price"] = [[0.5, 0.1]] if history else [[]]
        loss, _ = TrainWrapper(model)(make_batch(model.features, rows))
        loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def check_mixed_precision(case: Case) -> None:
    model = make_model(case.config + BCE)
    batch = make_batch(model.features, make_rows(256))
    losses = train(model, batch, steps=3, mixed_precision="BF16")
    expected = train(make_model(case.config + BCE), batch, steps=3)
    np.testing.assert_allclose(losses, expected, rtol=0.05)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == parameter.dtype == torch.float32, name
        assert torch.isfinite(parameter.grad).all(), name
    full, _ = PredictWrapper(model.eval())(batch)
    half, _ = PredictWrapper(model, mixed_precision="BF16")(batch)
    assert list(half) == list(full)
    for name, value in full.items():
        assert half[name].dtype == torch.float32, name
        assert not torch.equal(half[name], value), name
        if name.startswith("probs"):
            assert (half[name] - value).abs().mean() < 0.02, name


CHECKS = [
    check_formula_and_keys,
    check_several_classes,
    check_every_parameter_learns,
    check_overfits,
    check_same_seed_same_bits,
    check_mixed_precision,
    check_eager_equals_scripted,
    check_bf16,
    check_one_row,
]


# --- NumPy pieces for the oracles --------------------------------------------------------------


def embed(table: np.ndarray, ids: list, *, mean: bool = False) -> np.ndarray:
    """(B, D): sum (or mean) of the rows of each list of ids, or the row of each id."""
    result = np.zeros((len(ids), table.shape[1]))
    for i, row in enumerate(ids):
        found = np.atleast_1d(np.asarray(row, dtype=np.int64))
        if len(found):
            result[i] = table[found].mean(0) if mean else table[found].sum(0)
    return result


def ids(state: State, rows: Rows, names: str, suffix: str = "_emb") -> list[np.ndarray]:
    """(B, D) per name: embeddings of user, item and tags; "_emb_wide" for those of WIDE groups."""
    return [embed(state[name + suffix], rows[name], mean=name == "tags") for name in names.split()]


def price(rows: Rows) -> np.ndarray:
    """(B, 1)."""
    return np.array(rows["price"], np.float64)[:, None]


def linear(state: State, name: str, x: np.ndarray) -> np.ndarray:
    y = x @ state[f"{name}.weight"].T
    return y + state[f"{name}.bias"] if f"{name}.bias" in state else y


def mlp(state: State, name: str, x: np.ndarray) -> np.ndarray:
    """ReLU layers without norms."""
    i = 0
    while f"{name}.mlp.{i}.perceptron.0.weight" in state:
        x = np.maximum(linear(state, f"{name}.mlp.{i}.perceptron.0", x), 0)
        i += 1
    assert i
    return x


def layer_norm(state: State, name: str, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return normal * state[f"{name}.weight"] + state[f"{name}.bias"]


def squeeze(y: np.ndarray) -> np.ndarray:
    return y[:, 0] if y.shape[1] == 1 else y
