"""Users and items of one model go together; those of two are refused, and nothing is lost."""

import json
import logging
import re
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from match_jobs import make_rows, run
from torch import nn

from tzrec.deploy.artefact import read_manifest
from tzrec.deploy.fingerprint import fingerprint
from tzrec.errors import ConfigError, ServingError
from tzrec.options import Options
from tzrec.retrieval import Index, Retriever
from tzrec.retrieval.origin import WEIGHTS
from tzrec.retrieval.outputs import OutputFiles

OTHER = "0123456789abcdef"


def stamped(table: pa.Table, path, weights: str) -> None:
    """Writes a table as `tzrec embed` of a model with these weights does."""
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({WEIGHTS: weights})


def weights_in(path) -> str:
    return pq.read_metadata(path).metadata[WEIGHTS.encode()].decode()


@pytest.fixture(scope="module")
def embedded(trained, tmp_path_factory):
    """Vectors of the items and users, by the export."""
    root = tmp_path_factory.mktemp("embedded")
    for tower, rows in (("item", "items"), ("user", "test")):
        assert run("embed", trained.export, "--tower", tower, "--input", trained.root /
                   f"{rows}.parquet", "--id-field", f"{tower}_id", "--out",
                   root / f"{tower}s") == 0  # fmt: skip
    return root


class TestFingerprint:
    def test_every_tensor_counts(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Embedding(20_000, 8))
        before = fingerprint({"a": model})
        assert before == fingerprint({"a": model})
        assert len(before) == 16
        seen = {before}
        for value in model.state_dict().values():
            old = value.clone()
            value.add_(1)
            seen.add(fingerprint({"a": model}))
            value.copy_(old)
        assert len(seen) == 1 + len(model.state_dict())
        assert fingerprint({"a": model}) == before

    def test_a_few_rows_of_a_table_count(self):
        table = torch.nn.EmbeddingBag(100_000, 4)
        before = fingerprint({"": table})
        with torch.no_grad():
            table.weight[77] += 0.1
        assert fingerprint({"": table}) != before

    def test_names_shapes_and_types_count(self):
        def of(shape, kind=torch.float32, name="a"):
            module = nn.Module()
            module.register_buffer("w", torch.zeros(shape, dtype=kind))
            return fingerprint({name: module})

        found = [of((2, 3)), of((3, 2)), of((2, 3), torch.int32), of((2, 3), name="b"), of((0,))]
        found += [of(()), of((2, 3), torch.bfloat16), of((2, 3), torch.bool)]
        assert len(set(found)) == len(found)

    def test_one_of_a_model_wherever_it_comes_from(self, trained, embedded, tmp_path):
        weights = {read_manifest(trained.export / part).options["weights"] for part in
                   ("user", "item")}  # fmt: skip
        weights |= {weights_in(embedded / f"{t}s" / "part-0.parquet") for t in ("user", "item")}
        assert run("embed", trained.root / "run", "--tower", "item", "--input",
                   trained.root / "items.parquet", "--out", tmp_path / "o") == 0  # fmt: skip
        weights |= {weights_in(tmp_path / "o" / "part-0.parquet")}
        assert weights == {Index.load(trained.retriever).info.weights}
        assert weights != {""}


class TestIndex:
    def test_items_of_another_model(self, trained, embedded, tmp_path, capsys):
        table = pq.read_table(embedded / "items")
        stamped(table, tmp_path / "items.parquet", OTHER)
        words = ["--out", tmp_path / "r", "--user-tower", trained.export]
        assert run("index", tmp_path / "items.parquet", *words) == 2
        error = capsys.readouterr().err
        assert "is of another model than the items" in error
        assert OTHER in error
        assert not (tmp_path / "r").exists()
        assert run("index", embedded / "items", *words) == 0
        assert Retriever.load(tmp_path / "r").index.info.weights == weights_in(
            embedded / "items" / "part-0.parquet"
        )

    def test_items_of_an_unknown_model(self, trained, embedded, tmp_path, caplog):
        pq.write_table(pq.read_table(embedded / "items"), tmp_path / "items.parquet")
        caplog.set_level(logging.WARNING, "tzrec")
        assert run("index", tmp_path / "items.parquet", "--out", tmp_path / "r", "--user-tower",
                   trained.export) == 0  # fmt: skip
        assert "nothing tells whether" in caplog.text
        assert Index.load(tmp_path / "r").info.weights == ""

    def test_parts_of_two_models(self, embedded, tmp_path, capsys):
        (tmp_path / "items").mkdir()
        table = pq.read_table(embedded / "items")
        shutil.copy(embedded / "items" / "part-0.parquet", tmp_path / "items")
        stamped(table, tmp_path / "items" / "part-1.parquet", OTHER)
        assert run("index", tmp_path / "items", "--out", tmp_path / "r") == 2
        assert "the vectors are of several models" in capsys.readouterr().err

    def test_a_user_tower_that_was_exchanged(self, trained, tmp_path):
        """Both towers are whole and of the same width."""
        shutil.copytree(trained.retriever, tmp_path / "r")
        manifest = tmp_path / "r" / "user" / "manifest.json"
        body = json.loads(manifest.read_text())
        body["options"]["weights"] = OTHER
        manifest.write_text(json.dumps(body, indent=2) + "\n")
        with pytest.raises(ServingError, match=r"user/manifest\.json is not the file"):
            Retriever.load(tmp_path / "r")


def test_vectors_of_users_of_another_model(embedded, tmp_path, capsys):
    assert run("index", embedded / "items", "--out", tmp_path / "i") == 0
    stamped(pq.read_table(embedded / "users"), tmp_path / "users.parquet", OTHER)
    words = ["--out", tmp_path / "f", "--reserved-columns", "user_id", "--k", 3]
    assert run("retrieve", tmp_path / "i", "--input", tmp_path / "users.parquet", *words) == 2
    assert "users.parquet is of another model than the items" in capsys.readouterr().err
    assert not list((tmp_path / "f").glob("part*"))
    assert run("retrieve", tmp_path / "i", "--input", embedded / "users", *words) == 0


class TestEarlierOutput:
    @pytest.mark.parametrize("command", ["embed", "retrieve"])
    def test_is_kept_unless_it_may_go(self, trained, tmp_path, capsys, command):
        rows = tmp_path / "rows.parquet"
        pq.write_table(make_rows(5, seed=3), rows)
        words = ["--input", rows, "--out", tmp_path / "o"]
        if command == "embed":
            words = ["embed", trained.export, "--tower", "user", "--id-field", "user_id", *words]
        else:
            words = ["retrieve", trained.retriever, "--reserved-columns", "user_id", *words]
        assert run(*words) == 0
        part = tmp_path / "o" / "part-0.parquet"
        before = part.read_bytes()
        pq.write_table(make_rows(7, seed=4), rows)
        assert run(*words) == 2
        error = capsys.readouterr().err
        assert "holds files of an earlier run: part-0.parquet" in error
        assert "--overwrite" in error
        assert part.read_bytes() == before
        # Of a run of two processes, and of another format.
        shutil.copy(part, tmp_path / "o" / "part-1.parquet")
        (tmp_path / "o" / "part-0.csv").write_text("a\n1\n")
        (tmp_path / "o" / "notes.txt").write_text("mine")
        assert run(*words, "--overwrite") == 0
        assert sorted(p.name for p in (tmp_path / "o").iterdir()) == ["notes.txt", "part-0.parquet"]
        assert pq.read_table(part).num_rows == 7

    def test_is_kept_by_a_failure(self, trained, tmp_path):
        part = tmp_path / "o" / "part-0.parquet"
        part.parent.mkdir()
        part.write_bytes(b"mine")
        rows = tmp_path / "rows.parquet"
        pq.write_table(make_rows(5).drop_columns("likes"), rows)
        assert run("retrieve", trained.retriever, "--reserved-columns", "user_id", "--input", rows,
                   "--out", tmp_path / "o", "--overwrite") != 0  # fmt: skip
        assert part.read_bytes() == b"mine"

    def test_is_not_the_input(self, embedded, tmp_path, capsys):
        shutil.copytree(embedded / "users", tmp_path / "u")
        assert run("index", embedded / "items", "--out", tmp_path / "i") == 0
        for path in (tmp_path / "u", tmp_path / "u" / "part-0.parquet"):
            assert run("retrieve", tmp_path / "i", "--input", path, "--out", tmp_path / "u",
                       "--reserved-columns", "user_id", "--overwrite") == 2  # fmt: skip
            assert "holds the input" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "path", ["out/../out/part-0.parquet", "o*/part-0.parquet", "*/*.parquet", "link",
                 "link/part-0.parquet", "elsewhere.parquet,out/**/*.parquet"],
    )  # fmt: skip
    def test_is_not_the_input_by_another_name(self, tmp_path, path):
        (tmp_path / "out").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "out")
        for name in ("out/part-0.parquet", "elsewhere.parquet"):
            (tmp_path / name).touch()
        read = ",".join(f"{tmp_path}/{part}" for part in path.split(","))
        with pytest.raises(ConfigError, match="holds the input"):
            OutputFiles(str(tmp_path / "out"), read, options=Options(), overwrite=True)
        OutputFiles(str(tmp_path / "out"), f"{tmp_path}/elsewhere.parquet", options=Options(),
                    overwrite=True)  # fmt: skip

    def test_a_log_of_seen_items_is_input_too(self, embedded, tmp_path, capsys):
        assert run("index", embedded / "items", "--out", tmp_path / "i") == 0
        log = tmp_path / "o" / "part-1.parquet"
        log.parent.mkdir()
        shutil.copy(embedded / "users" / "part-0.parquet", log)
        assert run("retrieve", tmp_path / "i", "--input", embedded / "users", "--out",
                   tmp_path / "o", "--reserved-columns", "user_id", "--seen", log,
                   "--overwrite") == 2  # fmt: skip
        assert "holds the input" in capsys.readouterr().err
        assert log.exists()

    def test_the_same_bytes_again_stay(self, tmp_path):
        """A store's checksum says what is in a file, not when it was written."""
        (tmp_path / "part-0.parquet").write_bytes(b"rows")
        (tmp_path / "part-3.parquet").write_bytes(b"rows")
        files = OutputFiles(str(tmp_path), "in.parquet", options=Options(), overwrite=True)
        files.remove_left("part-0.parquet")
        assert [path.name for path in tmp_path.iterdir()] == ["part-0.parquet"]

    @pytest.mark.parametrize(
        ("rank", "world_size", "seen"),
        [(0, 1, "part-0.parquet, part-1.csv, part-12.parquet"), (1, 2, "part-1.csv"),
         (0, 2, "part-0.parquet, part-12.parquet"), (2, 3, "")],
    )  # fmt: skip
    def test_by_process(self, tmp_path, rank, world_size, seen):
        names = ("part-0.parquet", "part-1.csv", "part-12.parquet", "part-x.csv", "other.parquet")
        for name in names:
            (tmp_path / name).touch()
        options = Options(rank=rank, world_size=world_size)
        if not seen:
            OutputFiles(str(tmp_path), "in.parquet", options=options, overwrite=False)
            return
        with pytest.raises(ConfigError, match=re.escape(f"earlier run: {seen}\n")):
            OutputFiles(str(tmp_path), "in.parquet", options=options, overwrite=False)
