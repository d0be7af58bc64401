"""A compiled export: what it scores, what it refuses. The unified one has a file of its own."""

import json
import shutil
import threading
import zipfile

import numpy as np
import pytest
import split_jobs
import torch
from deploy_jobs import make_rows
from split_jobs import assert_close, batches, scores
from torch import Tensor, fx, nn

from tzrec.deploy import Predictor, aoti, machine
from tzrec.deploy.artefact import read_manifest
from tzrec.deploy.export import export_artefact
from tzrec.deploy.exported import export_graph
from tzrec.deploy.options import ExportOptions
from tzrec.deploy.package import Package
from tzrec.errors import ExportError, MissingDependencyError, ServingError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """MultiTowerDIN: features, a history of any length, an attention over it."""
    root = tmp_path_factory.mktemp("aoti")
    wrapper, features, config = split_jobs.build(root, "MultiTowerDIN")
    data = batches(features)
    expected = {case: scores(wrapper, batch) for case, batch in data.items()}
    export_artefact(
        config=config,
        model=wrapper.model,
        features=features,
        golden=data["some"],
        export_dir=root / "export",
        options=ExportOptions(target="aoti"),
    )
    return root / "export", data, expected, wrapper, features


@pytest.fixture(scope="module")
def loaded(job):
    return aoti.load(job[0], CPU)


def test_files(job):
    path = job[0]
    names = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}
    assert names >= {
        "scripted_sparse_model.pt",
        "gm_sparse.code",
        "gm.code",
        "aoti/aoti_model.pt2",
        "aoti/target.json",
        "graph/full.graph",
        "graph/sparse.graph",
        "graph/dense.graph",
    }
    assert "scripted_model.pt" not in names
    assert json.loads((path / "model_acc.json").read_text())["ENABLE_AOT"] == "1"
    manifest = read_manifest(path)
    assert manifest.target == "aoti"
    assert {"aoti/aoti_model.pt2", "aoti/target.json"} <= set(manifest.files)
    assert "embedding_bag" in (path / "gm_sparse.code").read_text()
    assert "din_towers" in (path / "graph" / "dense.graph").read_text()
    assert "din_towers" not in (path / "graph" / "sparse.graph").read_text()


def test_batches_of_all_sizes(job, loaded):
    _, data, expected, *_ = job
    for case, batch in data.items():
        for _ in range(2):
            with torch.inference_mode():
                assert_close(loaded(batch, CPU), expected[case])


def test_predictor(job):
    path, _, _, wrapper, features = job
    predictor = Predictor.load(path)
    rows = make_rows(57, seed=21)
    found = predictor.predict(rows)
    expected = scores(wrapper, split_jobs.parse(features, rows))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value.numpy(), rtol=0, atol=1e-6)


def test_threads_share_it(job, loaded):
    """More of them than run at a time, of batches of different sizes."""
    _, data, expected, *_ = job
    wrong = []

    def work(case):
        for _ in range(20):
            with torch.inference_mode():
                found = loaded(data[case], CPU)
            if not torch.allclose(found["probs"], expected[case]["probs"], rtol=0, atol=1e-6):
                wrong.append(case)

    threads = [threading.Thread(target=work, args=(case,)) for case in [*data] * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(threads) > 8
    assert wrong == []


def test_other_threads_run_meanwhile(job, loaded):
    """Python's lock is free while the program runs."""
    batch = {key: torch.cat([value] * 60) for key, value in job[1]["many"].items()}
    with torch.inference_mode():
        crossing = loaded.sparse(batch, CPU)
        loaded.dense(crossing)
        seen = [0]
        stop = threading.Event()

        def count():
            while not stop.is_set():
                seen[0] += 1

        counter = threading.Thread(target=count)
        counter.start()
        before = seen[0]
        program, tensors = loaded.dense._program, []
        for each in loaded.dense._inputs:
            tensors.append(crossing[each.name])
        call = program._call
        during = []

        def timed(name, *arguments):
            start = seen[0]
            call(name, *arguments)
            during.append(seen[0] - start)

        program._call = timed
        try:
            program.run(tensors)
        finally:
            del program._call
            stop.set()
            counter.join()
    assert seen[0] > before
    assert during[0] > 100


def test_inputs_are_checked(loaded, job):
    crossing = loaded.sparse(job[1]["some"], CPU)
    dense = loaded.dense
    name = "seq.query"
    with pytest.raises(ServingError, match=f"input {name} is missing"):
        dense({key: value for key, value in crossing.items() if key != name})
    with pytest.raises(ServingError, match=f"input {name} is torch.float64, it must be .*float32"):
        dense(crossing | {name: crossing[name].double()})
    wide = torch.cat([crossing[name]] * 2, dim=1)
    with pytest.raises(ServingError, match=rf"input {name} has shape \[13, .*\[any, "):
        dense(crossing | {name: wide})
    with pytest.raises(ServingError, match=rf"input {name} has shape \[13\]"):
        dense(crossing | {name: crossing[name][:, 0]})
    # Whole numbers of another width, and other strides, are the same numbers.
    lengths = crossing["seq.sequence_length"]
    assert lengths.dtype is torch.int32
    turned = crossing[name].t().contiguous().t()
    assert not turned.is_contiguous()
    with torch.inference_mode():
        expected = dense(crossing)
        found = dense(crossing | {"seq.sequence_length": lengths.long(), name: turned})
    assert_close(found, expected, atol=0)


@pytest.fixture
def copy(job, tmp_path):
    return shutil.copytree(job[0], tmp_path / "copy")


def edit(path, **changes):
    body = json.loads((path / aoti.TARGET).read_text())
    body["machine"] |= changes
    (path / aoti.TARGET).write_text(json.dumps(body))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"torch": "2.12.0+cpu"}, r"compiled for torch 2.12.0\+cpu, torch .* runs"),
        ({"torch": "9.1.0"}, "compiled for torch 9.1.0"),
        ({"machine": "riscv128"}, "compiled for riscv128, this machine is"),
        ({"needs": ["avx4096"], "capability": "AVX4096"}, "with AVX4096; this one lacks avx4096"),
    ],
)
def test_other_machines(copy, changes, message):
    edit(copy, **changes)
    with pytest.raises(ServingError, match=message):
        aoti.load(copy, CPU)


def test_a_cpu_that_can_less(copy, monkeypatch):
    needs = json.loads((copy / aoti.TARGET).read_text())["machine"]["needs"]
    if not needs:
        pytest.skip("this CPU has no vector instructions to lack")
    monkeypatch.setattr(machine, "_abilities", lambda: {"avx2": False})
    with pytest.raises(ServingError, match="this one lacks avx2"):
        aoti.load(copy, CPU)


def test_other_device(copy):
    with pytest.raises(ServingError, match="compiled for cpu, it cannot run on cuda"):
        aoti.load(copy, torch.device("cuda"))


def test_broken_files(copy):
    package = copy / aoti.PACKAGE
    whole = package.read_bytes()
    package.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ServingError, match=r"aoti_model\.pt2 cannot be loaded"):
        aoti.load(copy, CPU)
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("readme", "no program")
    with pytest.raises(ServingError, match="holds 0 programs"):
        aoti.load(copy, CPU)
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("model.wrapper.so", b"no library")
    with pytest.raises(ServingError, match="cannot be loaded"):
        aoti.load(copy, CPU)
    package.write_bytes(whole)
    target = json.loads((copy / aoti.TARGET).read_text())
    target["inputs"].pop()
    (copy / aoti.TARGET).write_text(json.dumps(target))
    with pytest.raises(ServingError, match=r"inputs and .* outputs, not the"):
        aoti.load(copy, CPU)
    (copy / aoti.TARGET).write_text("{")
    with pytest.raises(ServingError, match=r"target\.json cannot be read"):
        aoti.load(copy, CPU)


def test_no_compiler(job, tmp_path, monkeypatch):
    """Is said before anything is traced or compiled."""

    def missing():
        raise RuntimeError("no g++, no clang")

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", missing)
    monkeypatch.setattr(aoti, "trace", lambda wrapper: pytest.fail("traced"))
    with pytest.raises(MissingDependencyError, match=r"needs a C\+\+ compiler: no g\+\+"):
        aoti.write(job[3], job[1]["some"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_compiler_options():
    plain, tuned = machine.compiler_options(), machine.compiler_options(autotune=True)
    assert plain["cpp.dynamic_threads"]
    assert tuned.items() - plain.items() >= {("max_autotune", True)}


def graph_of(function) -> fx.GraphModule:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"y": function(self, data["x.values"])}

    return fx.symbolic_trace(Dense().eval())


class TestExportedProgram:
    golden = {"x.values": torch.randn(6, 4)}  # noqa: RUF012

    def test_free_sizes(self):
        made = export_graph(graph_of(lambda m, x: m.layer(x)), dict, self.golden)
        assert [(each.name, each.dtype, each.shape) for each in made.inputs] == [
            ("x.values", "float32", (None, 4))
        ]
        assert made.outputs == ["y"]

    def test_one_row_teaches_enough(self):
        golden = {"x.values": torch.randn(1, 4)}
        made = export_graph(graph_of(lambda m, x: m.layer(x)), dict, golden)
        assert made.inputs[0].shape == (None, 4)

    def test_a_size_that_is_fixed(self):
        fixed = graph_of(lambda m, x: m.layer(x.reshape(6, 4)))
        with pytest.raises(ExportError, match=r"for one size of 'x.values' only .*dimension 0"):
            export_graph(fixed, dict, self.golden)

    def test_what_torch_export_cannot_take(self):
        of_value = graph_of(lambda m, x: m.layer(x)[: x.sum().item()])
        with pytest.raises(ExportError, match=r"torch\.export cannot take"):
            export_graph(of_value, dict, self.golden)

    @pytest.mark.parametrize("precision", ["", "BF16"])
    def test_mixed_precision(self, precision):
        graph = graph_of(lambda m, x: m.layer(x))
        made = export_graph(graph, dict, self.golden, mixed_precision=precision)
        (found,) = made.program.module()(self.golden).values()
        assert found.dtype is (torch.bfloat16 if precision else torch.float32)


def test_a_package_of_nothing(tmp_path):
    with pytest.raises(ServingError, match="cannot be loaded"):
        Package(tmp_path / "nowhere.pt2", [], [], device=CPU)
