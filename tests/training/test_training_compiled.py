"""`train_config.compile_dense`: what is compiled, and that the numbers are those of the layers."""

import pytest
import torch
from knob_runs import load, rows
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys

from tzrec.datasets.data_parser import DataParser
from tzrec.errors import MissingDependencyError, Unsupported
from tzrec.main import train_and_evaluate
from tzrec.models.model import BaseModel
from tzrec.modules.mlp import MLP
from tzrec.training import build, compiled
from tzrec.training.checkpoint.find import list_checkpoints, read_results
from tzrec.utils import compiler


@pytest.fixture
def graphs():
    """A backend that keeps the graphs it was given and runs them as they are."""
    seen = []

    def backend(graph, inputs):
        seen.append(graph)
        return graph.forward

    backend.seen = seen
    torch._dynamo.reset()
    yield backend
    torch._dynamo.reset()


def make():
    """A MultiTower, and how it reads columns."""
    config = load(())
    torch.manual_seed(1)
    features = build.build_features(config.data_config, config.feature_configs)
    model = build.build_model(config, features)
    model.init_loss()
    parser = DataParser(features, labels=["clk"])
    return model, lambda num_rows: parser.to_batch(parser.parse(rows(3, num_rows)))


def step(model, batch):
    """The loss of a batch, and the gradients."""
    model.zero_grad()
    loss = model.total_loss(model.loss(model.predict(batch), batch))
    loss.backward()
    return loss, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def test_layers_behind_the_lookups_are_compiled_once_for_all_sizes(graphs):
    (plain, batch_of), (model, _) = make(), make()
    names = compiled.compile_dense(model, backend=graphs)
    assert set(names) == {"towers.deep", "final_mlp"}
    for num_rows in (32, 7, 19):
        batch = batch_of(num_rows)
        (expected, wanted), (loss, found) = step(plain, batch), step(model, batch)
        assert torch.equal(loss, expected)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
        assert len(graphs.seen) == len(names)
    assert plain.state_dict().keys() == model.state_dict().keys()


def test_many_layers_of_a_class_are_all_compiled(graphs):
    """Dynamo's limit of 8 per function counts for each layer, also with a batch of one row."""

    class Towers(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.towers = torch.nn.ModuleList(MLP(4 + i, [3 + i]) for i in range(12))

    model = Towers()
    assert len(compiled.compile_dense(model, backend=graphs)) == 12
    for num_rows in (32, 1, 7):
        for i, tower in enumerate(model.towers):
            tower(torch.zeros(num_rows, 4 + i))
    # One row is a size of its own to torch.
    assert len(graphs.seen) == 2 * 12


def test_an_evaluation_runs_the_layers_as_written(graphs):
    model, batch_of = make()
    compiled.compile_dense(model, backend=graphs)
    batch = batch_of(8)
    with compiled.as_written():
        expected, _ = step(model, batch)
    assert not graphs.seen
    assert torch.equal(step(model, batch)[0], expected)
    assert graphs.seen


def test_a_model_without_layers_is_refused():
    class Lookups(BaseModel):
        def __init__(self):
            torch.nn.Module.__init__(self)
            self._loss_modules = torch.nn.ModuleDict()

    with pytest.raises(Unsupported, match="Lookups has no layers behind its lookups"):
        compiled.compile_dense(Lookups(), backend="eager")


def test_without_a_compiler_nothing_starts(monkeypatch, click_config):
    def none():
        raise RuntimeError("no g++")

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", none)
    with pytest.raises(
        MissingDependencyError, match=r"compile_dense needs a C\+\+ compiler: no g"
    ) as e:
        train_and_evaluate(str(click_config()), edits=["train_config.compile_dense=true"])
    assert "leave compile_dense out" in str(e.value)
    with pytest.raises(MissingDependencyError, match="a thing needs"):
        compiler.find_compiler("a thing", otherwise="do not")


@pytest.mark.slow
def test_a_run_learns_the_same_and_goes_on_the_same(click_config, tmp_path):
    """Inductor's products and sums have another order, so only the last digits differ."""
    config = str(click_config())
    base = (
        "train_config.mixed_precision=FP32",
        "model_config.multi_tower_din.towers[0].mlp.dropout_ratio=0",
    )
    fast = (*base, "train_config.compile_dense=true")
    runs = {"plain": base, "whole": fast}
    for name, edits in runs.items():
        train_and_evaluate(config, model_dir=str(tmp_path / name), edits=list(edits))
    half = [*fast, "train_config.num_epochs=0", "train_config.num_steps=13"]
    train_and_evaluate(config, model_dir=str(tmp_path / "parts"), edits=half)
    train_and_evaluate(
        config, model_dir=str(tmp_path / "parts"), edits=list(fast), continue_train=True
    )
    weights, results = {}, {}
    for name in ("plain", "whole", "parts"):
        last = list_checkpoints(tmp_path / name)[-1]
        weights[name] = _load_state_dict_from_keys(checkpoint_id=str(last / "model"))
        results[name] = read_results(tmp_path / name)[-1]["binary_cross_entropy"]
    assert results["whole"] == pytest.approx(results["plain"], abs=1e-5)
    for key, value in weights["whole"].items():
        assert torch.equal(value, weights["parts"][key]), key
    assert any(
        not torch.equal(value, weights["plain"][key]) for key, value in weights["whole"].items()
    )
