"""Exports to, and models from, other storages: complete or not there at all."""

import gc
import json

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from deploy_fakes import FEATURES, FakeModel, fake_data, use_fakes
from deploy_jobs import make_rows, write_config

from tzrec import storage
from tzrec.cli import main
from tzrec.config import prepare
from tzrec.datasets.data_parser import DataParser
from tzrec.deploy import Predictor, artefact, part_writer
from tzrec.deploy.artefact import verify_artefact
from tzrec.deploy.destination import published
from tzrec.deploy.export import export_artefact, export_parts
from tzrec.deploy.options import ExportOptions
from tzrec.deploy.parts import Part
from tzrec.deploy.remote import staged
from tzrec.deploy.upload import upload_new
from tzrec.errors import ExportError, MissingDependencyError, ServingError
from tzrec.protos.data_pb2 import CsvDataset
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.training.build import build_features, build_model


@pytest.fixture
def memory():
    """An empty store within this process."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    return system


def make_part():
    config = EasyRecConfig(train_input_path="in.csv", eval_input_path="", model_dir="run")
    config.data_config.dataset_type = CsvDataset
    return Part(FakeModel(), config, FEATURES, fake_data(8), None)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A whole model with its rows."""
    root = tmp_path_factory.mktemp("remote")
    config = prepare(str(write_config(root / "c.config", "WideAndDeep", data=root / "no"))).config
    features = build_features(config.data_config, config.feature_configs)
    torch.manual_seed(0)
    model = build_model(config, features, with_labels=False)
    model.set_is_inference(True)
    rows = make_rows(16)
    parser = DataParser(features)
    golden = parser.parse({name: rows[name].combine_chunks() for name in parser.input_columns})
    batch = rows.combine_chunks().to_batches()[0]
    return {"config": config, "model": model.eval(), "features": features, "golden": golden,
            "rows": batch}, rows  # fmt: skip


@pytest.fixture(scope="module")
def local(job, tmp_path_factory):
    root = tmp_path_factory.mktemp("local")
    return export_artefact(**job[0], export_dir=root / "e", options=ExportOptions())


class TestExport:
    @pytest.fixture(autouse=True)
    def fakes(self, monkeypatch):
        use_fakes(monkeypatch)

    def test_files_are_those_of_a_local_export(self, memory, tmp_path):
        part = make_part()
        there = export_parts({"": part}, "memory://bucket/export/", staging=str(tmp_path / "s"))
        assert there == "memory://bucket/export/"
        export_parts({"": part}, tmp_path / "e")
        names = {p.relative_to(tmp_path / "e").as_posix() for p in (tmp_path / "e").rglob("*")}
        assert {n.removeprefix("/bucket/export/") for n in memory.find("/bucket")} == names
        # Nothing stays behind here.
        assert list((tmp_path / "s").iterdir()) == []
        assert [path.name for path in tmp_path.iterdir() if path.name != "s"] == ["e"]

    def test_manifests_come_last(self, memory, monkeypatch):
        """Whoever sees a manifest sees all that it lists, also of an export in parts."""
        order = []
        put = type(memory).put_file
        monkeypatch.setattr(
            type(memory),
            "put_file",
            lambda self, source, target, **kw: (order.append(target), put(self, source, target))[1],
        )
        export_parts({"user": make_part(), "item": make_part()}, "memory://b/e")
        assert order[-2:] == ["/b/e/item/manifest.json", "/b/e/user/manifest.json"]
        assert len(order) > 8

    def test_a_failed_upload_leaves_nothing(self, memory, monkeypatch):
        put = type(memory).put_file

        def full(self, source, target, **kwargs):
            if "golden" in target:
                raise OSError("the disk is full")
            return put(self, source, target, **kwargs)

        monkeypatch.setattr(type(memory), "put_file", full)
        with pytest.raises(ExportError, match="memory://b/e cannot be written: the disk is full"):
            export_parts({"": make_part()}, "memory://b/e")
        assert memory.find("/b") == []

    def test_two_at_the_same_time(self, memory, monkeypatch):
        """One of them sees the other and leaves everything to it, whenever that was there."""
        pipe = type(memory).pipe_file

        def after_another(self, path, content, **kwargs):
            self.store.pop("/b/e/manifest.json", None)
            pipe(self, "/b/e/manifest.json", b"of the other one")
            pipe(self, path, content, **kwargs)

        monkeypatch.setattr(type(memory), "pipe_file", after_another)
        with pytest.raises(ExportError, match=r"another process writes it.*manifest.json"):
            export_parts({"": make_part()}, "memory://b/e")
        assert memory.find("/b") == ["/b/e/manifest.json"]
        assert memory.cat("/b/e/manifest.json") == b"of the other one"

    def test_another_one_removes_the_directory_before_the_claim(self, tmp_path, monkeypatch):
        from fsspec.implementations.local import LocalFileSystem

        (tmp_path / "from").mkdir()
        (tmp_path / "from/x").write_bytes(b"x")
        pipe, calls = LocalFileSystem.pipe_file, []

        def gone(self, path, content, **kwargs):
            calls.append(path)
            if len(calls) == 1:
                self.rmdir(path.rpartition("/")[0])
            return pipe(self, path, content, **kwargs)

        monkeypatch.setattr(LocalFileSystem, "pipe_file", gone)
        upload_new(tmp_path / "from", f"file://{tmp_path}/to")
        assert [path.name for path in (tmp_path / "to").iterdir()] == ["x"]

    def test_who_gives_up_leaves_the_directories_of_the_other(self, memory, tmp_path, monkeypatch):
        """The other one has made a directory that its next file is to lie in."""
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub/x").write_bytes(b"x")
        memory.pipe_file("/b/e/.uploading-other", b"")
        memory.makedirs("/b/e/sub")
        with pytest.raises(ExportError, match="another process writes it"):
            upload_new(tmp_path, "memory://b/e")
        assert memory.isdir("/b/e/sub")

    def test_after_a_failure_only_own_files_are_removed(self, memory, tmp_path, monkeypatch):
        (tmp_path / "x").write_bytes(b"x")
        (tmp_path / "y").write_bytes(b"y")
        put = type(memory).put_file

        def full(self, source, target, **kwargs):
            if target.endswith("/y"):
                self.pipe_file("/b/e/z", b"of another program")
                raise OSError("the disk is full")
            return put(self, source, target, **kwargs)

        monkeypatch.setattr(type(memory), "put_file", full)
        with pytest.raises(OSError, match="full"):
            upload_new(tmp_path, "memory://b/e")
        assert memory.find("/b") == ["/b/e/z"]

    def test_a_model_that_differs_is_not_uploaded(self, memory, monkeypatch):
        monkeypatch.setattr(part_writer, "check_parity", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export_parts({"": make_part()}, "memory://b/e")
        assert memory.find("") == []

    def test_nothing_is_overwritten(self, memory):
        memory.pipe("/b/e/old", b"x")
        with (
            pytest.raises(ExportError, match="memory://b/e exists already"),
            published("memory://b/e"),
        ):
            pytest.fail("written nevertheless")
        assert memory.find("/b") == ["/b/e/old"]

    def test_an_unknown_scheme(self):
        with pytest.raises(MissingDependencyError, match="nowhere://"):
            export_parts({"": make_part()}, "nowhere://b/e")

    def test_file_scheme_is_local(self, tmp_path):
        path = export_parts({"": make_part()}, f"file://{tmp_path}/e")
        assert path == tmp_path / "e"
        verify_artefact(path)


class TestLoadedAgain:
    """An export is loaded as its users will, before they see it."""

    def test_what_cannot_be_loaded_is_not_published(self, job, tmp_path, monkeypatch):
        monkeypatch.setattr(
            part_writer, "_write_config", lambda config, work, options: _write_broken(work)
        )
        with pytest.raises(ExportError, match="cannot be loaded again; nothing was published"):
            export_artefact(**job[0], export_dir=tmp_path / "e")
        assert list(tmp_path.iterdir()) == []

    def test_scores_that_it_would_not_get_again(self, job, tmp_path, monkeypatch):
        """The gate compares what is in memory; users have the file."""
        save = part_writer.golden_batch.save_golden

        def save_others(path, inputs, outputs):
            save(path, inputs, {name: value + 0.5 for name, value in outputs.items()})

        monkeypatch.setattr(part_writer.golden_batch, "save_golden", save_others)
        with pytest.raises(ExportError, match="does not score here as where it was exported"):
            export_artefact(**job[0], export_dir=tmp_path / "e")
        assert list(tmp_path.iterdir()) == []


def _write_broken(work):
    (work / "model_acc.json").write_text("{}")
    (work / "pipeline.config").write_text("no config")


class TestLoad:
    @pytest.fixture
    def there(self, memory, local):
        storage.upload_tree(local, "memory://b/e")
        return memory

    def test_scores_are_those_of_the_local_one(self, there, local, job, tmp_path, monkeypatch):
        monkeypatch.setenv("LOCAL_CACHE_DIR", str(tmp_path / "cache"))
        wanted = Predictor.load(local).predict(job[1])
        predictor = Predictor.load("memory://b/e")
        assert sum(path.is_dir() for path in (tmp_path / "cache").iterdir()) == 1
        for name, value in predictor.predict(job[1]).items():
            np.testing.assert_array_equal(value, wanted[name])
        # The copy goes with the model.
        del predictor
        gc.collect()
        assert list((tmp_path / "cache").iterdir()) == []

    def test_only_what_the_manifest_lists_is_fetched(self, there):
        there.pipe("/b/e/other/large", b"x" * 1000)
        files = staged("memory://b/e")
        names = {p.relative_to(files.directory).as_posix() for p in files.directory.rglob("*")}
        assert names == {"manifest.json", *artefact.read_manifest(files.directory).files}
        files.close()
        assert not files.directory.exists()

    def test_a_local_directory_stays(self, local):
        files = staged(local)
        files.close()
        assert files.directory == local
        verify_artefact(local)

    def test_a_changed_file_is_refused(self, there):
        content = bytearray(there.cat("/b/e/scripted_model.pt"))
        content[len(content) // 2] ^= 1
        there.pipe("/b/e/scripted_model.pt", bytes(content))
        with pytest.raises(
            ServingError, match=r"^memory://b/e/scripted_model.pt was changed"
        ) as found:
            Predictor.load("memory://b/e")
        assert "tzrec-model-" not in str(found.value)
        assert "tzrec-model-" not in str(found.value.args)

    def test_errors_name_what_was_asked_for(self, there, tmp_path, monkeypatch):
        """Not the copy, of which nobody knows; and it does not stay."""
        monkeypatch.setenv("LOCAL_CACHE_DIR", str(tmp_path / "cache"))
        there.pipe("/b/e/manifest.json", b"{")
        with pytest.raises(ServingError, match=r"^memory://b/e/: manifest.json cannot be read"):
            Predictor.load("memory://b/e/")
        assert list((tmp_path / "cache").iterdir()) == []

    def test_a_missing_file(self, there):
        there.rm("/b/e/golden.npz")
        with pytest.raises(ServingError, match=r"^memory://b/e/golden.npz is missing"):
            Predictor.load("memory://b/e")

    def test_no_artefact(self, memory, local):
        with pytest.raises(ServingError, match=r"holds no manifest.json \(found: nothing\)"):
            Predictor.load("memory://b/e")
        storage.upload_tree(local, "memory://b/two/user")
        with pytest.raises(
            ServingError, match=r"found: user(?s:.*)name a part: memory://b/two/user"
        ):
            Predictor.load("memory://b/two")

    @pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside", "a\\b"])
    def test_a_manifest_cannot_name_files_elsewhere(self, there, tmp_path, name, monkeypatch):
        monkeypatch.setenv("LOCAL_CACHE_DIR", str(tmp_path / "cache"))
        body = json.loads(there.cat("/b/e/manifest.json"))
        body["files"][name] = {"size": 1, "sha256": "0"}
        there.pipe("/b/e/manifest.json", json.dumps(body).encode())
        with pytest.raises(ServingError, match="lists a file outside of the artefact"):
            Predictor.load("memory://b/e")
        assert not (tmp_path / "cache" / "outside").exists()

    def test_a_storage_that_does_not_answer(self, there, monkeypatch):
        def refused(self, *args, **kwargs):
            raise PermissionError("access denied")

        monkeypatch.setattr(type(there), "get_file", refused)
        with pytest.raises(ServingError, match=r"memory://b/e cannot be read: access denied"):
            Predictor.load("memory://b/e")


def test_s3(job, local, s3_url, tmp_path):
    """Through a real client and server: export there, score from there, also by the command."""
    target = f"{s3_url}/models/v1"
    export_artefact(**job[0], export_dir=target, options=ExportOptions(quantisation="INT8"))
    with pytest.raises(ExportError, match="exists already"):
        export_artefact(**job[0], export_dir=target)
    predictor = Predictor.load(target)
    assert predictor.manifest.options["quantisation"] == "INT8"
    difference = predictor.manifest.parity["quantised"]["difference"]["probs"]["largest"]
    gap = predictor.predict(job[1])["probs"] - Predictor.load(local).predict(job[1])["probs"]
    assert 0 < np.abs(gap).max() <= difference + 1e-6
    pq.write_table(job[1], tmp_path / "rows.parquet")
    flags = ["--input", str(tmp_path / "rows.parquet"), "--output", str(tmp_path / "out")]
    assert main(["predict", target, *flags]) == 0
    found = pq.read_table(tmp_path / "out" / "part-0.parquet")["probs"].to_numpy()
    np.testing.assert_array_equal(found, predictor.predict(job[1])["probs"])
    with pytest.raises(ServingError, match=r"holds no manifest\.json"):
        Predictor.load(f"{s3_url}/nothing")
