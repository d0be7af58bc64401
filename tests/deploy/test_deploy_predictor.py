from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from deploy_jobs import MODELS, OUTPUTS, make_rows, write_config

from tzrec.config import prepare
from tzrec.constant import Mode
from tzrec.datasets.dataset import create_dataloader, create_writer
from tzrec.deploy import Predictor, artefact
from tzrec.deploy.batch_predict import predict_table
from tzrec.deploy.export import export_artefact
from tzrec.deploy.golden_rows import check_golden_rows
from tzrec.errors import DataError, ServingError, Unsupported
from tzrec.models.model import PredictWrapper
from tzrec.training.build import build_features, build_model


def eager_scores(model, features, table):
    """The model in Python, outside the export: parse, build the batch, predict."""
    from tzrec.datasets.data_parser import DataParser

    parser = DataParser(features)
    columns = {name: table[name].combine_chunks() for name in parser.input_columns}
    batch = parser.to_batch(parser.parse(columns))
    wrapper = PredictWrapper(model, device=torch.device("cpu"))
    model.set_is_inference(True)
    wrapper.eval()
    with torch.no_grad():
        predictions, _ = wrapper(batch)
    return {name: value.numpy() for name, value in predictions.items()}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    made = {}

    def make(name):
        if name in made:
            return made[name]
        root = tmp_path_factory.mktemp(name)
        pq.write_table(make_rows(64), root / "train.parquet")
        config = prepare(
            write_config(root / "job.config", name, data=root / "train.parquet")
        ).config
        features = build_features(config.data_config, config.feature_configs)
        torch.manual_seed(3)
        model = build_model(config, features)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        loader = create_dataloader(
            config.data_config, features, config.train_input_path, mode=Mode.PREDICT
        )
        try:
            golden = next(iter(loader)).to_dict(sparse_dtype=torch.int64)
        finally:
            loader.close()
        path = export_artefact(
            config=config,
            model=model,
            features=features,
            golden=golden,
            export_dir=root / "export",
        )
        made[name] = SimpleNamespace(
            root=root,
            config=config,
            features=features,
            model=model,
            path=path,
            predictor=Predictor.load(path),
        )
        return made[name]

    return make


@pytest.fixture
def job(jobs):
    return jobs("MultiTowerDIN")


def assert_scores(actual, expected, atol=1e-6):
    assert sorted(actual) == sorted(expected)
    for name, value in expected.items():
        assert actual[name].dtype == value.dtype
        np.testing.assert_allclose(actual[name], value, rtol=0, atol=atol)


@pytest.mark.parametrize("name", MODELS)
class TestEveryModel:
    @pytest.mark.parametrize("num_rows", [1, 2, 13, 200])
    @pytest.mark.parametrize("empty", [False, True])
    def test_scores_equal_the_model(self, jobs, name, num_rows, empty):
        job = jobs(name)
        rows = make_rows(num_rows, seed=num_rows, empty=empty)
        expected = eager_scores(job.model, job.features, rows)
        for _ in range(2):
            scores = job.predictor.predict(rows)
            assert_scores(scores, expected)
        assert job.predictor.output_names == OUTPUTS[name] == sorted(scores)
        assert all(len(value) == num_rows for value in scores.values())

    def test_gate_ran_all_cases(self, jobs, name):
        cases = jobs(name).predictor.manifest.parity["cases"]
        assert list(cases) == ["golden batch", "one row", "two rows without ids"]
        for differences in cases.values():
            assert max(differences.values()) <= 1e-6

    def test_rows_do_not_depend_on_each_other(self, jobs, name):
        """Scored alone or with others, in any order."""
        predictor, rows = jobs(name).predictor, make_rows(9, seed=5)
        together = predictor.predict(rows)
        for i in range(9):
            alone = predictor.predict(rows.slice(i, 1))
            for key, value in alone.items():
                np.testing.assert_allclose(value[0], together[key][i], rtol=0, atol=2e-6)

    def test_table_equals_checkpoint_prediction(self, jobs, name, tmp_path):
        job = jobs(name)
        rows = make_rows(131, seed=8)  # more than a multiple of the batch size
        pq.write_table(rows, tmp_path / "in.parquet")
        wrapper = PredictWrapper(job.model, device=torch.device("cpu"))
        job.model.set_is_inference(True)
        wrapper.eval()
        tables = {}
        for kind, forward in {
            "scripted": job.predictor.forward_batch,
            "checkpoint": lambda batch: wrapper(batch)[0],
        }.items():
            loader = create_dataloader(
                job.config.data_config,
                job.features,
                str(tmp_path / "in.parquet"),
                ["row", "label"],
                Mode.PREDICT,
            )
            with loader:
                summary = predict_table(
                    forward, loader, create_writer(str(tmp_path / kind)), threads=2
                )
            assert summary.num_rows == 131
            tables[kind] = pq.read_table(tmp_path / kind)
        scripted, checkpoint = tables["scripted"], tables["checkpoint"]
        assert scripted.schema.names == [*OUTPUTS[name], "row", "label"]
        assert scripted["row"].to_pylist() == list(range(131))
        assert scripted["label"].equals(rows["label"])
        for column in OUTPUTS[name]:
            left, right = scripted[column].to_pylist(), checkpoint[column].to_pylist()
            np.testing.assert_allclose(np.array(left), np.array(right), rtol=0, atol=1e-6)


class TestRows:
    def test_kinds_of_rows(self, job):
        rows = make_rows(6, seed=2)
        expected = job.predictor.predict(rows)
        frame = rows.to_pandas()
        kinds = {
            "record batch": rows.to_batches()[0],
            "pandas": frame,
            "pandas of arrow": rows.to_pandas(types_mapper=pd_arrow()),
            "dict of lists": rows.to_pydict(),
            "dict of numpy": {name: frame[name].to_numpy() for name in frame},
            "dict of arrow": dict(zip(rows.schema.names, rows.columns, strict=True)),
            "chunks": pa.concat_tables([rows.slice(0, 2), rows.slice(2)]),
        }
        for kind, value in kinds.items():
            scores = job.predictor.predict(value)
            assert_scores(scores, expected), kind

    def test_missing_cells(self, job):
        """A row of a service where nothing but the dense numbers is known."""
        columns = {name: [None] for name in job.predictor.input_columns}
        columns |= {"price": [0.5], "pair": [[1.0, 2.0]], "age": [0.1]}
        scores = job.predictor.predict(columns)
        typed = {
            name: pa.array(value, pa.string()) if value == [None] else value
            for name, value in columns.items()
        }
        assert_scores(scores, job.predictor.predict(typed))

    def test_lists_instead_of_text(self, job):
        rows = make_rows(1, seed=2).to_pydict()
        names = ["tags", "click__item_id", "click__price"]
        as_text = rows | dict(zip(names, [["3\x0311"], ["5;9"], ["1;2"]], strict=True))
        as_lists = rows | dict(zip(names, [[[3, 11]], [[5, 9]], [[1.0, 2.0]]], strict=True))
        assert_scores(job.predictor.predict(as_lists), job.predictor.predict(as_text))
        no_text = rows | {name: [""] for name in names}
        no_lists = rows | {name: [[]] for name in names}
        assert_scores(job.predictor.predict(no_lists), job.predictor.predict(no_text))

    def test_no_rows(self, job):
        scores = job.predictor.predict(make_rows(5).slice(0, 0))
        assert {name: value.shape for name, value in scores.items()} == {
            "logits": (0, 2),
            "probs": (0, 2),
            "probs1": (0,),
        }
        assert scores["probs"].dtype == np.float32

    def test_surplus_columns_do_no_harm(self, job):
        rows = make_rows(3).append_column("odd", pa.array([b"x", None, b"y"]))
        assert_scores(job.predictor.predict(rows), job.predictor.predict(make_rows(3)))

    def test_wrong_rows(self, job):
        rows = make_rows(3).to_pydict()
        predict = job.predictor.predict
        with pytest.raises(DataError, match="lack the columns item_id; did you mean 'itemid'"):
            predict({("itemid" if k == "item_id" else k): v for k, v in rows.items()})
        with pytest.raises(DataError, match=r"different numbers of rows.*price 2"):
            predict(rows | {"price": [1.0, 2.0]})
        with pytest.raises(DataError, match=r"'price' is 3.0.*\n.*\[3.0\]"):
            predict(rows | {"price": 3.0})
        with pytest.raises(DataError, match="rows are a list"):
            predict([rows])
        with pytest.raises(DataError, match="'price' cannot be read"):
            predict(rows | {"price": [1.0, "x", {}]})
        with pytest.raises(DataError, match=r"item_id.*40 in row 1 .*outside"):
            predict(rows | {"item_id": [0, 40, 1]})

    def test_errors_of_the_model_come_through(self, jobs):
        """What the model raises in Python, the compiled model raises as the same class."""
        job = jobs("MultiTower")
        long = ";".join(["1"] * 13)
        rows = make_rows(1).to_pydict() | {"click__item_id": [long], "click__price": [long]}
        with pytest.raises(DataError, match="row of 13 steps, more than the sum of windows_len"):
            eager_scores(job.model, job.features, pa.table(rows))
        with pytest.raises(DataError, match=r"^sequence group click has a row of 13 steps"):
            job.predictor.predict(rows)

    def test_input_that_the_parser_did_not_make(self, job):
        parsed = job.predictor.parse(make_rows(2))
        del parsed["price.values"]
        with pytest.raises(ServingError, match=r"cannot score a batch: .*price\.values"):
            job.predictor.forward(parsed)

    def test_threads_share_a_predictor(self, job):
        wanted = {n: job.predictor.predict(make_rows(n, seed=n)) for n in range(1, 13)}
        wrong = []

        def work(shift):
            for n in [*range(1 + shift, 13), *range(1, 1 + shift)]:
                scores = job.predictor.predict(make_rows(n, seed=n))
                if not np.allclose(scores["probs"], wanted[n]["probs"], rtol=0, atol=1e-6):
                    wrong.append(n)

        threads = [threading.Thread(target=work, args=(3 * i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def pd_arrow():
    import pandas as pd

    return pd.ArrowDtype


class TestLoad:
    @pytest.mark.slow
    def test_from_another_place_and_process(self, job, tmp_path):
        """The directory is all that is needed: it moves, and the run may be gone.

        The model itself needs torch and FBGEMM only; the parser of raw rows is ours.
        """
        moved = shutil.copytree(job.path, tmp_path / "moved")
        rows = make_rows(4, seed=4)
        pq.write_table(rows, tmp_path / "rows.parquet")
        code = (
            "import sys, json, torch, fbgemm_gpu, numpy as np, pyarrow.parquet as pq\n"
            "data = np.load(sys.argv[1] + '/golden.npz')\n"
            "model = torch.jit.load(sys.argv[1] + '/scripted_model.pt')\n"
            "inputs = {k[6:]: torch.from_numpy(data[k]) for k in data.files if k[:6] == 'input:'}\n"
            "np.testing.assert_allclose(model(inputs)['probs'].detach().numpy(),\n"
            "    data['output:probs'], atol=1e-6)\n"
            "assert not any(name.split('.')[0] in ('tzrec', 'torchrec') for name in sys.modules)\n"
            "from tzrec.deploy import Predictor\n"
            "scores = Predictor.load(sys.argv[1]).predict(pq.read_table(sys.argv[2]))\n"
            "print(json.dumps({k: v.tolist() for k, v in scores.items()}))\n"
        )
        found = subprocess.run(
            [sys.executable, "-c", code, str(moved), str(tmp_path / "rows.parquet")],
            check=True,
            capture_output=True,
            text=True,
        )
        scores = json.loads(found.stdout.splitlines()[-1])
        for name, value in job.predictor.predict(rows).items():
            np.testing.assert_allclose(scores[name], value, rtol=0, atol=1e-6)

    def test_vocabulary_travels(self, job, tmp_path):
        (tmp_path / "words.txt").write_text("a\nb\nc\nd\n")
        text = (job.root / "job.config").read_text()
        vocab = f'vocab_file: "{tmp_path}/words.txt" default_bucketize_value: 0'
        text = text.replace("num_buckets: 50", vocab)
        (tmp_path / "job.config").write_text(text)
        config = prepare(tmp_path / "job.config").config
        features = build_features(config.data_config, config.feature_configs)
        model = build_model(config, features)
        rows = make_rows(8)
        rows = rows.set_column(1, "user_id", pa.array([0, 1, 2, 3] * 2))
        from tzrec.datasets.data_parser import DataParser

        parser = DataParser(features)
        golden = parser.parse({n: rows[n].combine_chunks() for n in parser.input_columns})
        path = export_artefact(
            config=config,
            model=model,
            features=features,
            golden=golden,
            export_dir=tmp_path / "e",
        )
        (tmp_path / "words.txt").unlink()
        path = path.rename(tmp_path / "elsewhere")
        predictor = Predictor.load(path)
        assert predictor.features[0].num_embeddings == 4
        assert_scores(predictor.predict(rows), eager_scores(model, features, rows))

    def test_changed_file_is_refused(self, job, tmp_path):
        copy = shutil.copytree(job.path, tmp_path / "copy")
        content = bytearray((copy / artefact.SCRIPTED_MODEL).read_bytes())
        content[-1] ^= 1
        (copy / artefact.SCRIPTED_MODEL).write_bytes(content)
        with pytest.raises(ServingError, match="was changed after the export"):
            Predictor.load(copy)

    def test_self_check(self, job, tmp_path):
        """An artefact that is whole but scores differently here than there."""
        copy = shutil.copytree(job.path, tmp_path / "copy")
        arrays = dict(np.load(copy / artefact.GOLDEN))
        arrays["output:probs"] = arrays["output:probs"] + 0.01
        np.savez(copy / artefact.GOLDEN, **arrays)
        manifest = json.loads((copy / artefact.MANIFEST).read_text())
        path = copy / artefact.GOLDEN
        manifest["files"][artefact.GOLDEN] = {
            "size": path.stat().st_size,
            "sha256": artefact.sha256(path),
        }
        (copy / artefact.MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(ServingError, match=r"does not score here(?s:.)*probs "):
            Predictor.load(copy)
        assert Predictor.load(copy, self_check=False).predict(make_rows(2))

    def test_mixed_precision_runs_on_the_cpu_only(self, job, tmp_path):
        copy = shutil.copytree(job.path, tmp_path / "copy")
        manifest = json.loads((copy / artefact.MANIFEST).read_text())
        manifest["options"]["mixed_precision"] = "BF16"
        (copy / artefact.MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(Unsupported, match="mixed_precision BF16 runs on the CPU"):
            Predictor.load(copy, device="cuda")

    def test_importing_the_package_loads_no_torch(self):
        code = "import sys, tzrec.deploy; assert 'torch' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True)
        with pytest.raises(AttributeError, match="no attribute 'predictor_'"):
            __import__("tzrec.deploy").deploy.predictor_  # noqa: B018


def test_golden_rows_may_hold_nan():
    """Of a column that no model reads; other values are compared as ever."""
    golden = {"x.values": torch.tensor([[1.0], [float("nan")]])}
    rows = pa.table({"x": [1.0, float("nan")]})
    check_golden_rows(rows, golden, lambda rows: {"x.values": golden["x.values"].clone()})
    for other in ([[1.0], [2.0]], [[float("nan")], [1.0]], [[1.0]]):
        with pytest.raises(ServingError, match="'x' of the golden rows becomes something else"):
            check_golden_rows(rows, golden, lambda rows, o=other: {"x.values": torch.tensor(o)})
