import copy
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from deploy_fakes import CPU, FEATURES, FakeModel, FakeWrapper, fake_data, use_fakes
from torch import nn

from tzrec.config import load_pipeline_config
from tzrec.deploy import artefact, assets, golden, part_writer, torchscript
from tzrec.deploy.artefact import read_manifest, verify_artefact
from tzrec.deploy.export import export_artefact
from tzrec.deploy.options import ExportOptions
from tzrec.deploy.verify import check_equal, check_parity
from tzrec.errors import ConfigError, ExportError, ServingError
from tzrec.models.wrappers import autocast
from tzrec.protos.data_pb2 import CsvDataset
from tzrec.protos.pipeline_pb2 import EasyRecConfig

DATA = dict[str, torch.Tensor]


def make_config(**paths: str) -> EasyRecConfig:
    config = EasyRecConfig(train_input_path="in.csv", eval_input_path="", model_dir="run")
    config.data_config.dataset_type = CsvDataset
    feature = config.feature_configs.add().id_feature
    feature.feature_name, feature.expression = "a", "item:a"
    for field, path in paths.items():
        setattr(feature, field, path)
    return config


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(7)
    return FakeModel()


@pytest.fixture(autouse=True)
def fake_wrapper(monkeypatch):
    use_fakes(monkeypatch)


def run_export(model, path, **kwargs):
    arguments = {"config": make_config(), "features": FEATURES, "golden": fake_data(32)} | kwargs
    return export_artefact(model=model, export_dir=path, **arguments)


@pytest.fixture(scope="module")
def published(model, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        use_fakes(patch)
        return run_export(model, tmp_path_factory.mktemp("deploy") / "export")


@pytest.fixture(scope="module")
def loaded(published):
    """One module for all sizes: it must not remember those that it was compiled for."""
    return load_model(published)


def load_model(path):
    return torchscript.load(path / artefact.SCRIPTED_MODEL, CPU)


def eager_scores(model, data, precision=""):
    wrapper = FakeWrapper(model)
    with torchscript.inference_mode_of(wrapper), torch.no_grad(), autocast("cpu", precision):
        return wrapper(data)


class TestLayout:
    def test_files(self, published):
        assert sorted(p.name for p in published.iterdir()) == [
            "gm.code",
            "golden.npz",
            "manifest.json",
            "model_acc.json",
            "pipeline.config",
            "scripted_model.pt",
        ]
        assert [p.name for p in published.parent.iterdir()] == ["export"]
        assert "embedding_bags" in (published / "gm.code").read_text()

    def test_manifest(self, published):
        manifest = verify_artefact(published)
        assert manifest.model == "FakeModel"
        assert manifest.versions["torch"] == torch.__version__
        weights = manifest.options["weights"]
        assert manifest.options == ExportOptions(weights=weights).to_dict()
        assert len(weights) == 16
        assert manifest.inputs["x.values"] == artefact.TensorSpec("float32", (1,))
        assert manifest.inputs["a.values"] == artefact.TensorSpec("int64", ())
        assert sorted(manifest.outputs) == ["logits", "probs"]
        assert manifest.parity["tolerance"] == 1e-6
        assert len(manifest.parity["cases"]) == 3
        assert manifest.parity["cases"]["golden batch"] == {"logits": 0.0, "probs": 0.0}

    def test_manifest_reads_what_it_writes(self, published):
        manifest = read_manifest(published)
        assert artefact.Manifest.from_json(manifest.to_json()) == manifest

    def test_golden_holds_the_models_scores(self, published, model):
        inputs, outputs = golden.load_golden(published / artefact.GOLDEN)
        assert inputs.keys() == fake_data(1).keys()
        np.testing.assert_array_equal(outputs["probs"], eager_scores(model, fake_data(32))["probs"])

    def test_config_is_a_copy(self, published):
        config = load_pipeline_config(published / artefact.PIPELINE_CONFIG)
        assert config == make_config()


@pytest.fixture(scope="module")
def dressed(tmp_path_factory):
    """An export with everything that can be asked for, and the model before it."""
    root = tmp_path_factory.mktemp("dressed")
    (root / "tree").write_text("t")
    options = ExportOptions(
        additional_export_config={"cand_seq_pk": "cand_seq"}, asset_files=(str(root / "tree"),)
    )
    model = FakeModel().train()
    model.mlp.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    golden = fake_data(8) | {"label": torch.ones(8)}
    with pytest.MonkeyPatch.context() as patch:
        use_fakes(patch)
        path = run_export(model, root / "new" / "parents" / "e", golden=golden, options=options)
    return path, model, before


class TestDressed:
    def test_model_acc(self, dressed):
        assert json.loads((dressed[0] / "model_acc.json").read_text()) == {
            "SPARSE_INT64": "1",
            "QUANT_EMB": "0",
            "cand_seq_pk": "cand_seq",
        }
        options = read_manifest(dressed[0]).options
        assert options["additional_export_config"] == {"cand_seq_pk": "cand_seq"}

    def test_labels_are_no_inputs(self, dressed):
        assert read_manifest(dressed[0]).inputs.keys() == fake_data(1).keys()

    def test_asset_files(self, dressed):
        assert (dressed[0] / "tree").read_text() == "t"
        assert "tree" in read_manifest(dressed[0]).files

    def test_the_model_is_left_as_it_was(self, dressed):
        _, model, before = dressed
        assert model.training
        assert not model.mlp.training
        assert not model.is_inference
        assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


class TestScripted:
    @pytest.mark.parametrize("num_rows", [1, 2, 7, 300])
    @pytest.mark.parametrize("max_length", [0, 1, 9])
    def test_other_sizes_and_lengths(self, loaded, model, num_rows, max_length):
        data = fake_data(num_rows, max_length=max_length, seed=1)
        for _ in range(3):
            scores = torchscript.run(loaded, data, CPU)
            assert sorted(scores) == ["logits", "probs"]
            torch.testing.assert_close(scores, eager_scores(model, data), rtol=0, atol=1e-6)

    def test_device_has_a_default(self, published, model):
        scores = load_model(published)(fake_data(3))
        assert scores["probs"].shape == (3,)

    def test_runs_in_threads(self, published, model):
        module = load_model(published)
        wanted = {n: eager_scores(model, fake_data(n, seed=n)) for n in range(1, 33)}
        wrong = []

        def work(sizes):
            for n in sizes:
                scores = torchscript.run(module, fake_data(n, seed=n), CPU)
                if (scores["probs"] - wanted[n]["probs"]).abs().max() > 1e-6:
                    wrong.append(n)

        threads = [threading.Thread(target=work, args=(list(wanted)[i::4] * 3,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong

    @pytest.mark.parametrize(
        ("precision", "dtype"), [("BF16", torch.bfloat16), ("FP16", torch.float16)]
    )
    def test_mixed_precision(self, model, tmp_path, precision, dtype):
        path = run_export(model, tmp_path / "e", options=ExportOptions(mixed_precision=precision))
        data = fake_data(17, seed=3)
        scores = torchscript.run(load_model(path), data, CPU)
        assert scores["probs"].dtype == dtype
        torch.testing.assert_close(scores, eager_scores(model, data, precision), rtol=0, atol=0)
        assert not torch.equal(scores["probs"].float(), eager_scores(model, data)["probs"])


class Broken(FakeWrapper):
    """Remembers how many rows the trace saw: the classic export bug."""

    def forward(self, data: DATA, device: torch.device = CPU):
        scores = self.model(data)
        if torch.jit.is_scripting() or isinstance(data, torch.fx.Proxy):
            return {"probs": scores["probs"] + 1e-5, "logits": scores["logits"]}
        return scores


class OwnWeights(FakeWrapper):
    """Weights that a script does not share with the model."""

    def __init__(self, model):
        super().__init__(model)
        self.kept = copy.deepcopy(model)

    def forward(self, data: DATA, device: torch.device = CPU):
        if isinstance(data, torch.fx.Proxy):
            return self.model(data)
        return self.kept(data)


class FixedRows(FakeWrapper):
    def forward(self, data: DATA, device: torch.device = CPU):
        scores = self.model(data)
        if isinstance(data, torch.fx.Proxy):
            return {k: v + torch.zeros(32) for k, v in scores.items()}
        return scores


class DataDependent(FakeWrapper):
    def forward(self, data: DATA, device: torch.device = CPU):
        if data["x.values"].sum() > 0:
            return self.model(data)
        return self.model(data)


class NotScriptable(FakeWrapper):
    def forward(self, data: DATA, device: torch.device = CPU):
        scores = self.model(data)
        return {**scores, "more": torch.fft.fft(scores["probs"]).real + _opaque(scores["probs"])}


@torch.fx.wrap
def _opaque(x):
    return torch.from_numpy(np.sort([*x.numpy()]))


def assert_nothing_left(tmp_path):
    assert list(tmp_path.iterdir()) == []


class TestGate:
    def test_different_scores_are_refused(self, model, tmp_path, monkeypatch):
        monkeypatch.setattr(part_writer, "_script_wrapper", Broken)
        with pytest.raises(ExportError) as error:
            run_export(model, tmp_path / "e")
        text = str(error.value)
        assert "probs" in text
        assert "max |difference|" in text
        assert "logits         0.000e+00  equal" in text
        assert_nothing_left(tmp_path)

    def test_tolerance_is_a_knob(self, model, tmp_path, monkeypatch):
        monkeypatch.setattr(part_writer, "_script_wrapper", Broken)
        path = run_export(model, tmp_path / "e", options=ExportOptions(tolerance=1e-4))
        found = read_manifest(path).parity["cases"]["golden batch"]["probs"]
        assert found == pytest.approx(1e-5, rel=0.05)

    def test_the_worse_of_two_runs_is_recorded(self):
        """The first run may differ although the second one does not."""
        gaps = iter([0.5, 0.0] * 2)
        report = check_parity(
            lambda data: {"y": torch.ones(2)},
            lambda data: {"y": torch.ones(2) + next(gaps)},
            {"golden batch": {}, "one row": {}},
            expected={"y": torch.ones(2)},
            tolerance=0.25,
            relative=0.25,
        )
        assert report["cases"] == {"golden batch": {"y": 0.5}, "one row": {"y": 0.5}}

    def test_a_scaled_tolerance_grows_with_the_largest_score(self):
        """Sums of numbers up to 74 have steps of 8e-6, also where the sum is near zero."""
        scores = {"logits": torch.tensor([74.0, 0.1]), "probs": torch.tensor([1.0, 0.5])}

        def check(name, gap, **options):
            moved = {**scores, name: scores[name] + torch.tensor([0.0, gap])}
            return check_equal(scores, moved, tolerance=1e-6, **options)[name]

        assert check("logits", 5e-5, scaled=True) == pytest.approx(5e-5, rel=1e-2)
        assert check("probs", 9e-7, scaled=True) > 0
        for name, gap, options in (
            ("logits", 9e-5, {"scaled": True}),
            ("probs", 2e-6, {"scaled": True}),
            ("logits", 5e-5, {}),
        ):
            with pytest.raises(ExportError, match=f"{name} "):
                check(name, gap, **options)
        whole = {"ids": torch.tensor([10**6, 5])}
        with pytest.raises(ExportError, match="ids "):
            check_equal(whole, {"ids": torch.tensor([10**6, 15])}, tolerance=1e-5, scaled=True)

    def test_frozen_number_of_rows_is_refused(self, model, tmp_path, monkeypatch):
        monkeypatch.setattr(part_writer, "_script_wrapper", FixedRows)
        with pytest.raises(ExportError, match="one row"):
            run_export(model, tmp_path / "e")
        assert_nothing_left(tmp_path)

    def test_untraceable_model(self, model, tmp_path, monkeypatch):
        monkeypatch.setattr(part_writer, "_script_wrapper", DataDependent)
        with pytest.raises(ExportError, match=r"(?s)FakeModel cannot be traced.*hint"):
            run_export(model, tmp_path / "e")
        assert_nothing_left(tmp_path)

    def test_unscriptable_model(self, model, tmp_path, monkeypatch):
        monkeypatch.setattr(part_writer, "_script_wrapper", NotScriptable)
        with pytest.raises(ExportError, match="TorchScript cannot compile"):
            run_export(model, tmp_path / "e")
        assert_nothing_left(tmp_path)

    def test_broken_weights_are_refused(self, tmp_path):
        model = FakeModel()
        nn.init.constant_(model.mlp[3].bias, float("nan"))
        with pytest.raises(ExportError, match="NaN"):
            run_export(model, tmp_path / "e")
        assert_nothing_left(tmp_path)

    def test_what_the_disk_holds_is_compared(self, model, tmp_path, monkeypatch):
        def save_other_weights(scripted, model_path, code_path):
            with torch.no_grad():
                next(p for n, p in scripted.module.named_parameters() if "mlp" in n).add_(0.1)
            torchscript_save(scripted, model_path, code_path)

        torchscript_save = torchscript.save
        clone = FakeModel()
        clone.load_state_dict(model.state_dict())
        monkeypatch.setattr(torchscript, "save", save_other_weights)
        with pytest.raises(ExportError):
            run_export(clone, tmp_path / "e")
        assert_nothing_left(tmp_path)

    @pytest.mark.parametrize("precision", ["BF16", "FP16"])
    @pytest.mark.parametrize("tolerance", [None, 1e-2])
    def test_sixteen_bits_hide_no_wrong_weights(
        self, model, tmp_path, monkeypatch, precision, tolerance
    ):
        """An error of 1e-4 is less than rounding; whoever allows more gets it."""

        def save_other_weights(scripted, model_path, code_path):
            with torch.no_grad():
                bias = dict(scripted.module.named_parameters())["inner.model.mlp.3.bias"]
                bias.add_(1e-4)
            torchscript_save(scripted, model_path, code_path)

        torchscript_save = torchscript.save
        clone = FakeModel()
        clone.load_state_dict(model.state_dict())
        monkeypatch.setattr(torchscript, "save", save_other_weights)
        monkeypatch.setattr(part_writer, "_script_wrapper", OwnWeights)
        options = ExportOptions(mixed_precision=precision, tolerance=tolerance)
        if tolerance is None:
            with pytest.raises(ExportError, match=r"(?s)tolerance 1e-06.*logits"):
                run_export(clone, tmp_path / "e", options=options)
            assert_nothing_left(tmp_path)
            return
        report = read_manifest(run_export(clone, tmp_path / "e", options=options)).parity
        plain = report["without_mixed_precision"]
        assert plain["tolerance"] == tolerance
        assert plain["cases"]["golden batch"]["logits"] == pytest.approx(1e-4, rel=0.1)
        assert list(plain["cases"]) == list(report["cases"])


class TestArguments:
    def test_existing_directory_is_refused(self, model, tmp_path):
        with pytest.raises(ExportError, match="exists already"):
            run_export(model, tmp_path)
        assert_nothing_left(tmp_path)

    def test_directory_that_appears_meanwhile(self, model, tmp_path, monkeypatch):
        verify = artefact.verify_artefact

        def verify_slowly(path):
            (tmp_path / "e").mkdir()
            return verify(path)

        monkeypatch.setattr(artefact, "verify_artefact", verify_slowly)
        with pytest.raises(ExportError, match="exists already"):
            run_export(model, tmp_path / "e")
        assert list((tmp_path / "e").iterdir()) == []

    def test_golden_without_a_feature(self, model, tmp_path):
        data = fake_data(4)
        del data["x.values"]
        with pytest.raises(ExportError, match="lacks features: x"):
            run_export(model, tmp_path / "e", golden=data)

    def test_golden_without_rows(self, model, tmp_path):
        with pytest.raises(ExportError, match="no rows"):
            run_export(model, tmp_path / "e", golden=fake_data(0))

    @pytest.mark.parametrize(
        ("kwargs", "error"),
        [
            ({"target": "torchscrpt"}, ConfigError),
            ({"quantisation": "INT9"}, ConfigError),
            ({"mixed_precision": "BF17"}, ConfigError),
            ({"tolerance": float("nan")}, ConfigError),
            ({"tolerance": -1.0}, ConfigError),
        ],
    )
    def test_wrong_options(self, kwargs, error):
        with pytest.raises(error):
            ExportOptions(**kwargs)


class TestAssets:
    def test_vocabulary_travels(self, model, tmp_path):
        vocab = tmp_path / "data" / "words.txt"
        vocab.parent.mkdir()
        vocab.write_text("one\ntwo\n")
        config = make_config(vocab_file="words.txt", asset_dir=str(vocab.parent))
        path = run_export(model, tmp_path / "e", config=config)
        stored = load_pipeline_config(path / artefact.PIPELINE_CONFIG).feature_configs[0].id_feature
        # echo -ne "one\\ntwo\\n" | md5sum
        assert stored.vocab_file == "words_2094b601daac3d68f5aed51d3c20f7cd.txt"
        assert not stored.asset_dir
        assert (path / stored.vocab_file).read_text() == "one\ntwo\n"
        assert stored.vocab_file in read_manifest(path).files
        assert config.feature_configs[0].id_feature.vocab_file == "words.txt"

    def test_files_of_a_tokenizer(self, model, tmp_path):
        """The stop characters lie in the folder of the feature around their message."""
        folder = tmp_path / "data"
        folder.mkdir()
        (folder / "t.json").write_text("{}")
        (folder / "stop.txt").write_text("!\n")
        config = make_config()
        feature = config.feature_configs.add().tokenize_feature
        feature.feature_name, feature.expression, feature.embedding_dim = "t", "item:t", 4
        feature.vocab_file, feature.asset_dir = "t.json", str(folder)
        feature.text_normalizer.stop_char_file = "stop.txt"
        path = run_export(model, tmp_path / "e", config=config)
        stored = load_pipeline_config(path / artefact.PIPELINE_CONFIG)
        found = stored.feature_configs[1].tokenize_feature
        assert not found.asset_dir
        assert (path / found.vocab_file).read_text() == "{}"
        assert (path / found.text_normalizer.stop_char_file).read_text() == "!\n"
        assets.resolve_feature_assets(stored, path)
        # echo "!" | md5sum
        name = "stop_8183aa57a23658efe7ba7aebe60816bc.txt"
        assert found.text_normalizer.stop_char_file == str(path / name)

    @pytest.mark.parametrize("library", ["bundled", "shop.operators", "own.py"])
    def test_operators(self, model, tmp_path, library):
        """A file travels; a module is imported from where it is installed."""
        file = tmp_path / "own.py"
        file.write_text("x = 1\n")
        config = make_config()
        feature = config.feature_configs.add().custom_feature
        feature.feature_name, feature.operator_name = "c", "Own"
        feature.operator_lib_file = str(file) if library == "own.py" else library
        path = run_export(model, tmp_path / "e", config=config)
        stored = load_pipeline_config(path / artefact.PIPELINE_CONFIG)
        found = stored.feature_configs[1].custom_feature
        assets.resolve_feature_assets(stored, path)
        if library != "own.py":
            assert found.operator_lib_file == library
            return
        assert found.operator_lib_file.startswith(str(path / "own_"))
        assert "x = 1" in Path(found.operator_lib_file).read_text()

    def test_missing_vocabulary(self, model, tmp_path):
        with pytest.raises(
            ExportError, match=r"feature_configs\[0\].id_feature.vocab_file.*nowhere"
        ):
            run_export(model, tmp_path / "e", config=make_config(vocab_file="nowhere.txt"))

    def test_asset_file_cannot_replace_the_model(self, model, tmp_path):
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "scripted_model.pt").write_text("t")
        options = ExportOptions(asset_files=(str(tmp_path / "in" / "scripted_model.pt"),))
        with pytest.raises(ExportError, match="would overwrite"):
            run_export(model, tmp_path / "e", options=options)
        with pytest.raises(ExportError, match="no file"):
            run_export(model, tmp_path / "e", options=ExportOptions(asset_files=("nowhere",)))


class TestCorruption:
    @pytest.fixture
    def copy(self, published, tmp_path):
        return shutil.copytree(published, tmp_path / "copy")

    @pytest.mark.parametrize(
        "name", ["scripted_model.pt", "pipeline.config", "golden.npz", "model_acc.json", "gm.code"]
    )
    def test_changed_byte(self, copy, name):
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)
        with pytest.raises(ServingError, match=f"{name} was changed"):
            verify_artefact(copy)

    def test_short_file(self, copy):
        with (copy / "scripted_model.pt").open("r+b") as file:
            file.truncate(100)
        with pytest.raises(ServingError, match="has 100 bytes"):
            verify_artefact(copy)

    def test_missing_file(self, copy):
        (copy / "scripted_model.pt").unlink()
        with pytest.raises(ServingError, match="is missing"):
            verify_artefact(copy)

    def test_not_an_artefact(self, copy, tmp_path):
        (copy / "manifest.json").unlink()
        with pytest.raises(ServingError, match=r"no manifest.json.*found: gm.code"):
            verify_artefact(copy)
        with pytest.raises(ServingError, match="not a directory"):
            verify_artefact(tmp_path / "nowhere")

    def edit(self, copy, **changes):
        body = json.loads((copy / "manifest.json").read_text())
        body |= changes
        (copy / "manifest.json").write_text(json.dumps(body))

    def test_newer_format(self, copy):
        self.edit(copy, format_version=2)
        with pytest.raises(ServingError, match="format version 2"):
            verify_artefact(copy)

    def test_newer_torch(self, copy):
        self.edit(copy, versions={"torch": "99.1.0+cpu"})
        with pytest.raises(ServingError, match=r"torch 99.1.0\+cpu, torch .* runs"):
            verify_artefact(copy)

    def test_older_torch_is_read(self, copy):
        self.edit(copy, versions={"torch": "2.9.1"})
        verify_artefact(copy)

    @pytest.mark.parametrize(
        "changes",
        [
            {"format": "other"},
            {"files": {}},
            {"files": 3},
            {"surplus": 1},
            {"versions": []},
            {"options": []},
            {"target": []},
        ],
    )
    def test_odd_manifest(self, copy, changes):
        self.edit(copy, **changes)
        with pytest.raises(ServingError, match=r"manifest.json") as error:
            verify_artefact(copy)
        assert str(copy) in str(error.value)

    @pytest.mark.parametrize("content", [b"{", b"\xff\xfe{}", b"3"])
    def test_manifest_that_is_no_json(self, copy, content):
        (copy / "manifest.json").write_bytes(content)
        with pytest.raises(ServingError, match="cannot be read") as error:
            verify_artefact(copy)
        assert str(copy) in str(error.value)

    def test_model_of_another_kind(self, copy):
        (copy / "scripted_model.pt").write_bytes(b"no model")
        with pytest.raises(ServingError, match="cannot be loaded"):
            load_model(copy)
