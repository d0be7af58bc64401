"""Traced models without containers, and cut in two: the same numbers, bit by bit."""

import pytest
import split_jobs
import torch
from deploy_jobs import MODELS
from split_jobs import assert_equal, batches, scores
from torch import Tensor, nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig, EmbeddingConfig, PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor

from tzrec.deploy import torchscript
from tzrec.deploy.options import ExportOptions
from tzrec.deploy.quantise import quantise_tables
from tzrec.deploy.split import split
from tzrec.deploy.trace import trace
from tzrec.deploy.unify import unify
from tzrec.errors import ExportError
from tzrec.models.model import CombinedModelWrapper
from tzrec.modules import columns, jagged

CPU = torch.device("cpu")
CROSSING = {
    "WideAndDeep": ["deep.features", "wide"],
    "DeepFM": ["deep.features", "fm", "wide"],
    "MultiTower": [
        "click.query",
        "click.rows",
        "click.sequence",
        "click.sequence_length",
        "click.starts",
        "click.steps",
        "item",
    ],
    "MultiTowerDIN": [
        "seq.query",
        "seq.rows",
        "seq.sequence",
        "seq.sequence_length",
        "seq.starts",
        "seq.steps",
    ],
}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    made = {}

    def get(name):
        if name not in made:
            wrapper, features, _ = split_jobs.build(tmp_path_factory.mktemp(name), name)
            data = batches(features)
            with torchscript.inference_mode_of(wrapper), torch.inference_mode():
                traced = trace(wrapper)
            expected = {case: scores(wrapper, batch) for case, batch in data.items()}
            made[name] = wrapper, traced, data, expected
        return made[name]

    return get


def of_torchrec(graph):
    return [node for node in graph.nodes if "torchrec" in str(node.target)]


@pytest.mark.parametrize("name", MODELS)
def test_without_containers(jobs, name):
    _, traced, data, expected = jobs(name)
    assert of_torchrec(traced.graph) == []
    scripted = torchscript.compile_graph(traced)
    for case, batch in data.items():
        for _ in range(2):
            assert_equal(torchscript.run(scripted, batch, CPU), expected[case])


@pytest.mark.parametrize("name", MODELS)
def test_split(jobs, name):
    _, traced, data, expected = jobs(name)
    before = traced.code
    parts = split(traced, data["some"])
    assert traced.code == before
    sparse = torchscript.compile_graph(parts.sparse)
    combined = CombinedModelWrapper(sparse, parts.dense)
    with torch.inference_mode():
        for case, batch in data.items():
            assert_equal(combined(batch), expected[case])
        crossing = sparse(data["some"], CPU)
    tables = {name for name, _ in parts.dense.named_parameters() if "embedding_bags" in name}
    assert not tables
    assert set(CROSSING[name]) <= set(crossing)
    assert all(value.is_contiguous() for value in crossing.values())
    # All layers are behind the cut, no table is.
    layers = {n.target for n in parts.sparse.graph.nodes if n.op == "call_module"}
    assert layers
    assert all(".embedding_bags." in t or ".embeddings." in t for t in layers)


@pytest.mark.parametrize("name", MODELS)
def test_graph_for_export(jobs, name):
    """Operators of FBGEMM and Python's numbers are replaced by ones that torch.export knows."""
    _, traced, data, expected = jobs(name)
    whole = unify(traced, data["some"])
    for case, batch in data.items():
        with torch.inference_mode():
            assert_equal(whole(batch), expected[case])


def _ids(data: dict[str, Tensor], names: list[str], weighted: bool = False) -> KeyedJaggedTensor:
    weights = torch.cat([data[f"{n}.weights"] for n in names]) if weighted else None
    return KeyedJaggedTensor(
        keys=names,
        values=torch.cat([data[f"{n}.values"] for n in names]),
        lengths=torch.cat([data[f"{n}.lengths"] for n in names]),
        weights=weights,
    )


def _bags(names, *, dims=(4, 8), shared=False, weighted=False, pooling=PoolingType.SUM):
    if shared:
        tables = [
            EmbeddingBagConfig(name="t", num_embeddings=9, embedding_dim=4, feature_names=names)
        ]
    else:
        tables = [
            EmbeddingBagConfig(
                name=f"t_{n}", num_embeddings=9, embedding_dim=d, feature_names=[n], pooling=pooling
            )
            for n, d in zip(names, dims, strict=False)
        ]
    return EmbeddingBagCollection(tables, is_weighted=weighted)


class Shell(nn.Module):
    """Stands for a ScriptWrapper around a function."""

    def __init__(self, run, **modules) -> None:
        super().__init__()
        self.run = run
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, data: dict[str, Tensor], device: torch.device = CPU) -> dict[str, Tensor]:
        return self.run(self, data)


def _data(rows=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    data = {}
    for name in ("a", "b", "c"):
        lengths = torch.randint(0, 4, (rows,), generator=generator, dtype=torch.int32)
        total = int(lengths.sum())
        data[f"{name}.lengths"] = lengths
        data[f"{name}.values"] = torch.randint(0, 9, (total,), generator=generator)
        data[f"{name}.weights"] = torch.rand(total, generator=generator)
    data["x.values"] = torch.randn(rows, 3, generator=generator)
    return data


def _regrouped(self, data):
    """Pieces in two groups, in another order, with other columns between."""
    pooled = self.ebc(_ids(data, ["b", "a", "c"]))
    extra = data["x.values"]
    groups = [[0, -1, 2], [2, 0], [1]]
    keys, widths = ["a", "b", "c"], [4, 8, 4]
    plan = columns.ColumnPlan.of(keys, widths, groups)
    made = plan.regroup(pooled, [extra])
    return {"first": made[0], "second": made[1], "third": made[2]}


def _plain(self, data):
    ids = _ids(data, ["a", "b"], weighted=True)
    found = self.ebc(ids).to_dict()
    lengths = ids.to_dict()["a"].lengths()
    return {"a": found["a"] / lengths.unsqueeze(1), "b": found["b"], "w": ids["b"].weights()}


def _unknown(self, data):
    """What the pass does not know stays as it is."""
    ids = _ids(data, ["a", "b"])
    turned = ids.permute([1, 0])
    both = KeyedTensor(keys=["x", "y"], length_per_key=[1, 2], values=data["x.values"])
    return {
        "v": turned.values(),
        "l": ids.lengths(),
        "y": both["y"],
        "steps": self.ec(ids)["a"].values(),
    }


SHELLS = {
    "groups": lambda: Shell(_regrouped, ebc=_bags(["a", "b", "c"], dims=(4, 8, 4))),
    "mean": lambda: Shell(_plain, ebc=_bags(["a", "b"], weighted=True)),
    "shared": lambda: Shell(
        lambda self, data: {"v": self.ebc(_ids(data, ["a", "b"])).values()},
        ebc=_bags(["b", "a"], shared=True),
    ),
    "unknown": lambda: Shell(
        _unknown,
        ec=EmbeddingCollection(
            tables=[
                EmbeddingConfig(
                    name="t", num_embeddings=9, embedding_dim=4, feature_names=["a", "b"]
                )
            ]
        ),
    ),
}


@pytest.mark.parametrize("name", SHELLS)
def test_containers_of_every_kind(name):
    torch.manual_seed(1)
    shell = SHELLS[name]().eval()
    with torch.inference_mode():
        traced = trace(shell)
        scripted = torchscript.compile_graph(traced)
        for rows in (5, 1, 17):
            data = _data(rows, seed=rows)
            expected = shell(data)
            assert_equal(scripted(data, CPU), expected)
            assert_equal(traced(data, CPU), expected)
    left = {getattr(node.target, "__name__", "") for node in of_torchrec(traced.graph)}
    assert left == ({"KeyedJaggedTensor"} if name == "unknown" else set())


def test_layers_between_lookups_and_padding_stay_dense():
    """A padded result of a layer, its size read from a batch, a step that repeats rows."""

    def run(self, data):
        lengths = data["a.lengths"]
        steps = self.ec(_ids(data, ["a"]))["a"].values()
        most = jagged.max_length(lengths)
        hidden = self.layer(steps)
        padded = jagged.pad(hidden, lengths, most)
        back = jagged.unpad(padded, lengths)
        rows = self.layer(data["x.values"].repeat(1, 2)[:, :4]).repeat_interleave(lengths, dim=0)
        return {"padded": padded.sum(dim=1), "back": back + rows}

    table = EmbeddingConfig(name="t", num_embeddings=9, embedding_dim=4, feature_names=["a"])
    shell = Shell(run, ec=EmbeddingCollection(tables=[table]), layer=nn.Linear(4, 4)).eval()
    with torch.inference_mode():
        traced = trace(shell)
        parts = split(traced, _data())
        assert [n.target for n in parts.sparse.graph.nodes if n.op == "call_module"] == [
            "ec.embeddings.t"
        ]
        assert "layer" in parts.dense.code
        sparse = torchscript.compile_graph(parts.sparse)
        for rows in (5, 1, 17):
            data = _data(rows, seed=rows)
            assert_equal(CombinedModelWrapper(sparse, parts.dense)(data), shell(data))
        assert sparse(_data(), CPU)["node.max_length"].shape == (3, 0)


def test_what_cannot_cross():
    """A number that is no size, made of the batch."""

    def run(self, data):
        return {"y": self.layer(data["x.values"]) * torch.mean(data["x.values"]).item()}

    shell = Shell(run, layer=nn.Linear(3, 2)).eval()
    with torch.inference_mode():
        traced = trace(shell)
        with pytest.raises(ExportError, match=r"cannot be split: .*item.*, a float"):
            split(traced, _data())


def test_narrow_tables_stay_with_the_lookups(tmp_path):
    wrapper, features, _ = split_jobs.build(tmp_path, "MultiTower")
    data = batches(features)
    options = ExportOptions(quantisation="INT8", sequence_quantisation="INT4")
    with (
        quantise_tables(wrapper.model, options).in_model(),
        torchscript.inference_mode_of(wrapper),
        torch.inference_mode(),
    ):
        traced = trace(wrapper)
        parts = split(traced, data["some"])
        sparse = torchscript.compile_graph(parts.sparse)
        assert {"item", "click.sequence"} <= set(sparse(data["some"], CPU))
        assert "look_up" not in parts.dense.code
        for batch in data.values():
            assert_equal(CombinedModelWrapper(sparse, parts.dense)(batch), wrapper(batch))
        with pytest.raises(ExportError, match=r"it needs kernels of FBGEMM .*look_up"):
            unify(traced, data["some"])


def test_a_loaded_model_is_frozen(jobs, tmp_path):
    """Its weights are constants, its scores the same; but a mixed one keeps its autocast."""
    _, traced, data, expected = jobs("DeepFM")
    for precision in ("", "BF16", "FP16"):
        module = torchscript.compile_graph(traced, precision)
        torchscript.save(
            torchscript.Scripted(module, traced.code), tmp_path / "m.pt", tmp_path / "m.code"
        )
        loaded = torchscript.load(tmp_path / "m.pt", CPU)
        assert bool(list(loaded.parameters())) == bool(precision)
        for _ in range(2):
            wanted = torchscript.run(module, data["some"], CPU)
            assert_equal(torchscript.run(loaded, data["some"], CPU), wanted)
        gap = (wanted["logits"].float() - expected["some"]["logits"]).abs().max()
        assert bool(gap) == bool(precision)
