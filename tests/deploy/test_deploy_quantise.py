"""Narrow tables: packed rows against NumPy, lookups against torch, exports of every kind."""

import copy

import numpy as np
import pytest
import torch
from deploy_fakes import CPU, FEATURES, FakeModel, fake_data, use_fakes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig, EmbeddingConfig, PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from tzrec.deploy import artefact, quantise, quantised, torchscript
from tzrec.deploy.artefact import read_manifest
from tzrec.deploy.export import export_artefact
from tzrec.deploy.options import ExportOptions
from tzrec.deploy.quantise import quantise_tables
from tzrec.errors import ExportError, ServingError
from tzrec.protos.data_pb2 import CsvDataset
from tzrec.protos.pipeline_pb2 import EasyRecConfig

KINDS = ("FP16", "INT8", "INT4", "INT2")
BITS = {"INT8": 8, "INT4": 4, "INT2": 2}
SUM, MEAN = PoolingType.SUM, PoolingType.MEAN


def rounded_by_hand(values, kind):
    """The row-wise scheme, written down in NumPy: scale and smallest value are float16."""
    if kind == "FP16":
        return values.astype(np.float16).astype(np.float32)
    steps = 2 ** BITS[kind] - 1
    least = values.min(1, keepdims=True).astype(np.float16).astype(np.float32)
    scale = (values.max(1, keepdims=True) - least) / steps
    scale = np.where(scale == 0, 1, scale).astype(np.float16).astype(np.float32)
    codes = np.clip(np.rint((values - least) / scale), 0, steps)
    return (codes * scale + least).astype(np.float32)


class Bags(nn.Module):
    """Pooled tables of several dims; the pooling alternates, one table has two features."""

    def __init__(self, poolings=(SUM, MEAN, SUM), *, is_weighted=False, dims=(16, 8, 8)):
        super().__init__()
        features = (["a"], ["b"], ["c", "a"])
        self.ebc = EmbeddingBagCollection(
            tables=[
                EmbeddingBagConfig(
                    name=f"t{i}",
                    num_embeddings=20 + i,
                    embedding_dim=dim,
                    feature_names=names,
                    pooling=pooling,
                )
                for i, (dim, names, pooling) in enumerate(
                    zip(dims, features, poolings, strict=True)
                )
            ],
            is_weighted=is_weighted,
        )

    def forward(self, ids: KeyedJaggedTensor):
        return self.ebc(ids)


class Steps(nn.Module):
    def __init__(self):
        super().__init__()
        tables = [("t0", ["a"]), ("t1", ["c", "b"]), ("t2", ["a"])]
        self.ec = EmbeddingCollection(
            tables=[
                EmbeddingConfig(name=n, num_embeddings=20, embedding_dim=8, feature_names=f)
                for n, f in tables
            ]
        )

    def forward(self, ids: KeyedJaggedTensor):
        return self.ec(ids)


def make_ids(num_rows=9, *, weighted=False, longest=4, high=20, seed=0):
    rng = np.random.default_rng(seed)
    keys = ["x", "c", "b", "a"]
    lengths = rng.integers(0, longest + 1, len(keys) * num_rows)
    total = int(lengths.sum())
    values = torch.from_numpy(rng.integers(0, high, total))
    weights = torch.from_numpy(rng.random(total).astype(np.float32)) if weighted else None
    return KeyedJaggedTensor(
        keys=keys,
        values=values,
        lengths=torch.from_numpy(lengths.astype(np.int32)),
        weights=weights,
    )


def options(kind="INT8"):
    return ExportOptions(quantisation=kind, sequence_quantisation=kind)


def scripted(model):
    from torchrec.fx import Tracer

    return torch.jit.script(torch.fx.GraphModule(model, Tracer().trace(model)))


class TestRows:
    @pytest.mark.parametrize("kind", KINDS)
    def test_rounded_values(self, kind):
        torch.manual_seed(0)
        model = Bags()
        tables = quantise_tables(model, options(kind))
        trained = {k: v.numpy().copy() for k, v in model.state_dict().items()}
        with tables.rounded():
            for name, value in model.state_dict().items():
                step = np.ptp(trained[name], axis=1, keepdims=True) / (2 ** BITS.get(kind, 16) - 1)
                wanted = rounded_by_hand(trained[name], kind)
                # Half-way values may go up or down; everything else is the same number.
                gap = np.abs(value.numpy() - wanted)
                assert (gap <= step * 1.01 + 1e-7).all()
                assert np.mean(gap < 1e-6) > 0.97
                assert not np.array_equal(value.numpy(), trained[name])
        for name, value in model.state_dict().items():
            np.testing.assert_array_equal(value.numpy(), trained[name])

    def test_report(self):
        report = quantise_tables(Bags(), options("INT8")).report
        assert list(report) == ["ebc.t0", "ebc.t1", "ebc.t2"]
        first = report["ebc.t0"]
        assert first["largest_error"] > 0
        assert first == {
            "type": "INT8",
            "rows": 20,
            "dim": 16,
            "bytes": 20 * (16 + 4),
            "trained_bytes": 20 * 16 * 4,
            "largest_error": first["largest_error"],
        }

    def test_summary(self):
        table = {"type": "INT8", "bytes": 2**21, "trained_bytes": 6 * 2**20}
        assert quantise.summary({"a": table, "b": table | {"type": "FP16"}}) == (
            "2 tables as FP16, INT8: 4.0 MiB instead of 12.0 MiB (3.0 x smaller)"
        )
        small = quantise.summary({"a": table | {"bytes": 1536}})
        assert small == "1 table as INT8: 1.5 KiB instead of 6.0 MiB (4096.0 x smaller)"

    @settings(max_examples=60, deadline=None)
    @given(
        seed=st.integers(0, 2**31),
        magnitude=st.floats(-9, 4),
        shift=st.floats(-4, 4),
        kind=st.sampled_from(KINDS),
    )
    def test_the_bound_holds_for_any_range(self, seed, magnitude, shift, kind):
        """No honest table is refused: tiny and huge rows, far from zero, of one value."""
        rng = np.random.default_rng(seed)
        rows = rng.normal(size=(16, 8)) * 10.0**magnitude + shift * (seed % 3 - 1)
        rows[0] = rows[0, 0]
        rows[1] = 0
        model = Bags((SUM, SUM, SUM), dims=(8, 8, 8))
        with torch.no_grad():
            model.ebc.embedding_bags["t0"].weight[:16] = torch.from_numpy(rows)
        quantise_tables(model, options(kind))

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_wrong_code_is_found(self, kind, monkeypatch):
        packed = quantise._packed

        def off_by_one(values, kind):
            rows = packed(values, kind)
            # The lowest bit of the last code; of FP16 the lowest bit of the exponent.
            rows[7, -1] ^= 4 if kind == "FP16" else 1
            return rows

        monkeypatch.setattr(quantise, "_packed", off_by_one)
        with pytest.raises(ExportError, match=f"ebc.t0 cannot be held as {kind}: a row loses"):
            quantise_tables(Bags(), options(kind))

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e9])
    def test_values_that_do_not_fit(self, kind, value):
        model = Bags()
        with torch.no_grad():
            model.ebc.embedding_bags["t1"].weight[3, 2] = value
        with pytest.raises(ExportError, match=r"ebc\.t1 cannot be held as"):
            quantise_tables(model, options(kind))

    @pytest.mark.parametrize(("kind", "dim", "multiple"), [("INT8", 5, 2), ("INT4", 6, 4),
                                                         ("INT2", 12, 8)])  # fmt: skip
    def test_dims_that_cannot_be_packed(self, kind, dim, multiple):
        message = f"ebc.t1 has rows of {dim} values.*must be a multiple of {multiple}"
        with pytest.raises(ExportError, match=message):
            quantise_tables(Bags(dims=(16, dim, 8)), options(kind))

    def test_large_tables_in_chunks(self, monkeypatch):
        model = Bags()
        whole = quantise_tables(model, options())
        monkeypatch.setattr(quantise, "_CHUNK", 7)
        pieces = quantise_tables(model, options())
        assert torch.equal(whole._store, pieces._store)
        assert whole.report == pieces.report
        with pieces.rounded():
            found = copy.deepcopy(model.state_dict())
        with whole.rounded():
            torch.testing.assert_close(found, dict(model.state_dict()), rtol=0, atol=0)

    def test_float16_tables(self):
        model = Bags()
        model.ebc.half()
        tables = quantise_tables(model, options("INT8"))
        assert tables.report["ebc.t0"]["trained_bytes"] == 20 * 16 * 2
        with tables.rounded():
            assert model.ebc.embedding_bags["t0"].weight.dtype == torch.float32
        assert model.ebc.embedding_bags["t0"].weight.dtype == torch.float16


class TestLookups:
    """The narrow tables against TorchRec's collections on the rounded rows."""

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(
        ("poolings", "weighted"),
        [((SUM, SUM, SUM), False), ((SUM, SUM, SUM), True), ((MEAN, MEAN, MEAN), False),
         ((SUM, MEAN, SUM), False), ((MEAN, SUM, SUM), False)],
    )  # fmt: skip
    def test_pooled(self, kind, poolings, weighted):
        torch.manual_seed(1)
        model = Bags(poolings, is_weighted=weighted)
        tables = quantise_tables(model, options(kind))
        with tables.in_model():
            assert type(model.ebc) is quantised.QuantisedBags
            narrow = scripted(model)
        assert type(model.ebc) is EmbeddingBagCollection
        for ids in (make_ids(weighted=True), make_ids(1, weighted=True, seed=3),
                    make_ids(5, weighted=True, longest=0)):  # fmt: skip
            with tables.rounded():
                wanted = model(ids)
            with tables.in_model():
                eager = model(ids)
            found = narrow(ids)
            assert found.keys() == wanted.keys() == eager.keys()
            assert found.length_per_key() == wanted.length_per_key()
            torch.testing.assert_close(found.values(), wanted.values(), rtol=0, atol=1e-6)
            assert torch.equal(found.values(), eager.values())

    @pytest.mark.parametrize("kind", KINDS)
    def test_sequences(self, kind):
        torch.manual_seed(1)
        model = Steps()
        tables = quantise_tables(model, options(kind))
        with tables.in_model():
            assert type(model.ec) is quantised.QuantisedSequences
            narrow = scripted(model)
        for ids in (make_ids(), make_ids(1, seed=3), make_ids(5, longest=0)):
            with tables.rounded():
                wanted = model(ids)
            found = narrow(ids)
            assert found.keys() == wanted.keys()
            for key, value in wanted.items():
                assert torch.equal(found[key].values(), value.values())
                assert torch.equal(found[key].lengths(), value.lengths())

    def test_weights_of_others_are_not_taken(self):
        """Ids of a data group have weights as soon as one of its features has."""
        model = Bags()
        tables = quantise_tables(model, options())
        with tables.in_model():
            left, right = model(make_ids(weighted=True)), model(make_ids())
        assert torch.equal(left.values(), right.values())

    @pytest.mark.parametrize("bad", [20, 21, -1, 2**40])
    @pytest.mark.parametrize("model", [Bags(), Steps()], ids=["pooled", "sequence"])
    def test_ids_out_of_range(self, model, bad):
        """Row 20 of the first table lies where padding, or the next table, begins."""
        tables = quantise_tables(model, options())
        ids = make_ids(1, longest=0)
        ids = KeyedJaggedTensor(
            keys=ids.keys(), values=torch.tensor([bad]), lengths=torch.tensor([0, 0, 0, 1])
        )
        with tables.in_model(), pytest.raises(RuntimeError):
            model(ids)

    def test_shared_weights_are_stored_once(self):
        model = nn.ModuleDict({"x": Bags(), "y": Bags()})
        alone = quantise_tables(model["x"], options())
        for name in ("t0", "t1", "t2"):
            model["y"].ebc.embedding_bags[name].weight = model["x"].ebc.embedding_bags[name].weight
        both = quantise_tables(model, options())
        assert both._store.numel() == alone._store.numel()
        with both.in_model():
            ids = make_ids()
            assert torch.equal(model["x"](ids).values(), model["y"](ids).values())

    def test_only_what_is_asked_for(self):
        model = nn.ModuleDict({"x": Bags(), "y": Steps()})
        for pooled, sequence in (("INT8", ""), ("", "INT4"), ("FP16", "INT8"), ("", "")):
            wanted = ExportOptions(quantisation=pooled, sequence_quantisation=sequence)
            kinds = {n: t["type"] for n, t in quantise_tables(model, wanted).report.items()}
            assert {k for n, k in kinds.items() if n.startswith("x.ebc")} == set(
                filter(None, [pooled])
            )
            assert {k for n, k in kinds.items() if n.startswith("y.ec")} == set(
                filter(None, [sequence])
            )

    def test_the_model_comes_back_after_an_error(self):
        model = Bags()
        tables = quantise_tables(model, options())
        before = {k: v.clone() for k, v in model.state_dict().items()}
        with pytest.raises(KeyError), tables.rounded(), tables.in_model():
            raise KeyError
        assert type(model.ebc) is EmbeddingBagCollection
        assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def make_config():
    config = EasyRecConfig(train_input_path="in.csv", eval_input_path="", model_dir="run")
    config.data_config.dataset_type = CsvDataset
    return config


@pytest.fixture
def run_export(monkeypatch):
    use_fakes(monkeypatch)

    def run(model, path, **kwargs):
        return export_artefact(
            config=make_config(),
            features=FEATURES,
            golden=fake_data(32),
            model=model,
            export_dir=path,
            options=ExportOptions(**kwargs),
        )

    return run


class TestExport:
    def test_manifest(self, run_export, tmp_path):
        torch.manual_seed(2)
        model = FakeModel()
        before = {k: v.clone() for k, v in model.state_dict().items()}
        path = run_export(model, tmp_path / "e", quantisation="INT4", sequence_quantisation="FP16")
        assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
        manifest = artefact.verify_artefact(path)
        assert manifest.options["quantisation"] == "INT4"
        assert manifest.options["tolerance"] == 1e-5
        found = manifest.parity["quantised"]
        kinds = {name.removeprefix("model."): t["type"] for name, t in found["tables"].items()}
        assert kinds == {"ebc.a": "INT4", "ebc.b": "INT4", "ec.s": "FP16"}
        # Against the rounded rows: only the order of sums; against the trained ones: much more.
        assert max(manifest.parity["cases"]["golden batch"].values()) <= 1e-6
        module = torchscript.load(path / artefact.SCRIPTED_MODEL, CPU)
        scores = torchscript.run(module, fake_data(32), CPU)
        with torchscript.inference_mode_of(model), torch.no_grad():
            gap = (scores["logits"] - model(fake_data(32))["logits"]).abs()
        difference = found["difference"]["logits"]
        assert difference["largest"] == pytest.approx(float(gap.max()), abs=1e-6)
        assert difference["mean"] == pytest.approx(float(gap.mean()), abs=1e-6)
        assert difference["largest"] > 1e-3

    def test_each_type_is_finer_than_the_next(self):
        torch.manual_seed(2)
        model = FakeModel().eval()
        data = fake_data(64)
        with torch.no_grad():
            trained = model(data)["logits"]
            means = []
            for kind in KINDS:
                with quantise_tables(model, options(kind)).rounded():
                    means.append(float((model(data)["logits"] - trained).abs().mean()))
        # 11 bits, then 8, 4 and 2 of them.
        assert means[0] * 3 < means[1]
        assert means[1] * 8 < means[2]
        assert means[2] * 2 < means[3]

    def test_size_on_disk(self, run_export, tmp_path):
        """Dim 16: a row has 16 + 4 bytes instead of 64. Wider rows come closer to 4 times."""
        model = FakeModel()
        tables = [
            EmbeddingBagConfig(name=n, num_embeddings=20000, embedding_dim=16, feature_names=[n])
            for n in ("a", "b")
        ]
        model.ebc = EmbeddingBagCollection(tables=tables)
        model.mlp[0] = nn.Linear(41, 16)
        wide = run_export(model, tmp_path / "wide") / artefact.SCRIPTED_MODEL
        narrow = run_export(model, tmp_path / "e", quantisation="INT8") / artefact.SCRIPTED_MODEL
        rest = 2**17  # code, other weights
        assert wide.stat().st_size > 2 * 20000 * 64
        assert narrow.stat().st_size < 2 * 20000 * 20 + rest
        assert wide.stat().st_size > 3 * (narrow.stat().st_size - rest)

    def test_a_model_without_tables(self):
        tables = quantise_tables(nn.Linear(2, 2), options())
        assert tables.report == {}
        assert "no tables" in quantise.summary(tables.report)
        with tables.rounded(), tables.in_model():
            pass

    @pytest.mark.parametrize("what", ["offsets", "types", "store"])
    def test_a_broken_lookup_is_refused(self, run_export, tmp_path, monkeypatch, what):
        """The gate compares what the disk holds: rows of the next id, another type, other bytes."""
        build = quantised._Lookup.__init__

        def broken(self, *args, **kwargs):
            build(self, *args, **kwargs)
            if what == "offsets":
                self.offsets += 12
            elif what == "types":
                self.types += 1
            else:
                self.store = self.store.clone()
                self.store[5 * 12 + 6 :: 12] ^= 8

        monkeypatch.setattr(quantised._Lookup, "__init__", broken)
        with pytest.raises((ExportError, ServingError), match="nothing was published"):
            run_export(FakeModel(), tmp_path / "e", quantisation="INT8")
        assert list(tmp_path.iterdir()) == []

    def test_mixed_precision(self, run_export, tmp_path):
        path = run_export(FakeModel(), tmp_path / "e", quantisation="INT8", mixed_precision="BF16")
        assert read_manifest(path).outputs["probs"].dtype == "bfloat16"
