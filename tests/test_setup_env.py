"""`make setup`: which packages it chooses, and what it says when it cannot."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

_spec = importlib.util.spec_from_file_location("setup_env", ROOT / "scripts" / "setup_env.py")
setup_env = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(setup_env)


class FakeMachine:
    """Stands in for pip and for what is installed."""

    def __init__(self, monkeypatch, packages=None, torch=None):
        self.packages, self.torch, self.calls = dict(packages or {}), torch, []
        monkeypatch.setattr(setup_env, "make_venv", lambda venv: venv / "bin" / "python")
        monkeypatch.setattr(setup_env, "probe", lambda python: self.state())
        monkeypatch.setattr(setup_env.Pip, "run", lambda pip, *arguments: self.run(*arguments))

    def state(self):
        return {"python": [3, 11], "torch": self.torch, "packages": dict(self.packages)}

    def run(self, command, *arguments):
        self.calls.append([command, *arguments])
        for name, equals, version in (a.partition("==") for a in arguments):
            if command == "uninstall":
                self.packages.pop(name, None)
            elif equals:
                self.packages[name] = version
                if name == "torch":
                    self.torch = [f"{version}+cpu", None]

    def installed(self):
        return {name for name in self.packages if name.startswith(("fbgemm", "torch"))}


def test_nothing_there_gives_the_tested_set(monkeypatch, tmp_path, capsys):
    machine = FakeMachine(monkeypatch)
    setup_env.install(tmp_path, "dev")
    assert machine.packages["torch"] == setup_env.TORCH
    assert machine.installed() == {"torch", "fbgemm-gpu-cpu", "torchrec"}
    without_dependencies = next(call for call in machine.calls if "--no-deps" in call)
    assert {"fbgemm-gpu-cpu==1.8.0", "torchrec==1.8.0"} <= set(without_dependencies)
    assert machine.calls[-1][-1] == f"{ROOT}[dev]"
    assert str(ROOT / "constraints.txt") in machine.calls[-1]


def test_a_torch_that_is_there_is_taken_and_decides_the_fbgemm(monkeypatch, tmp_path, capsys):
    for torch, right in (
        (["2.13.0+cu130", "13.0"], "fbgemm-gpu"),
        (["2.13.1", None], "fbgemm-gpu-cpu"),
    ):
        machine = FakeMachine(monkeypatch, torch=torch)
        setup_env.install(tmp_path, "dev")
        assert not any(a.startswith("torch==") for call in machine.calls for a in call)
        assert machine.installed() == {right, "torchrec"}
    assert "13.0" in capsys.readouterr().out


def test_a_gpu_brings_its_extra(monkeypatch, tmp_path, capsys):
    machine = FakeMachine(monkeypatch, torch=["2.13.0+cu130", "13.0"])
    setup_env.install(tmp_path, "dev")
    assert machine.calls[-1][-1] == f"{ROOT}[dev,gpu]"


@pytest.mark.parametrize(
    ("torch", "wrong", "right"),
    [
        (["2.13.0+cpu", None], "fbgemm-gpu", "fbgemm-gpu-cpu"),
        (["2.13.0+cu130", "13.0"], "fbgemm-gpu-cpu", "fbgemm-gpu"),
    ],
)
@pytest.mark.parametrize("both", [True, False])
def test_never_both_builds(monkeypatch, tmp_path, capsys, torch, wrong, right, both):
    packages = {wrong: "1.8.0"} | ({right: "1.8.0"} if both else {})
    machine = FakeMachine(monkeypatch, packages=packages, torch=torch)
    setup_env.install(tmp_path, "dev")
    assert machine.installed() == {right, "torchrec"}
    # They own the same files, so the right one is installed after the wrong one has gone.
    commands = [call[0] for call in machine.calls]
    assert commands.index("uninstall") < commands.index("install")


@pytest.mark.parametrize("version", ["2.12.1", "2.14.0+cpu", "3.0.0"])
def test_a_torch_that_fbgemm_does_not_fit_is_refused(monkeypatch, tmp_path, version):
    machine = FakeMachine(monkeypatch, torch=[version, None])
    with pytest.raises(setup_env.SetupError, match=version.split("+")[0]):
        setup_env.install(tmp_path, "dev")
    assert machine.calls == []


def test_a_dependency_that_changes_torch_is_noticed(monkeypatch, tmp_path, capsys):
    machine = FakeMachine(monkeypatch, torch=["2.13.0+cpu", None])
    run = machine.run

    def greedy(command, *arguments):
        run(command, *arguments)
        if "--editable" in arguments:
            machine.torch = ["2.13.2", "13.0"]

    machine.run = greedy
    with pytest.raises(setup_env.SetupError, match="changed torch"):
        setup_env.install(tmp_path, "dev")


@pytest.mark.parametrize("version", [(3, 9), (3, 14)])
def test_python_without_wheels_is_refused(version):
    with pytest.raises(setup_env.SetupError, match="make setup PYTHON="):
        setup_env.check_python(version)


@pytest.mark.parametrize("version", [(3, 10), (3, 11), (3, 12), (3, 13)])
def test_python_range_is_that_of_the_package(version):
    setup_env.check_python(version)
    assert 'requires-python = ">=3.10,<3.14"' in (ROOT / "pyproject.toml").read_text()


def test_missing_venv_module_names_the_package(monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "ensurepip" else find(name)
    )
    with pytest.raises(setup_env.SetupError, match="apt-get install python3-venv"):
        setup_env.make_venv(tmp_path / "new")


def test_a_second_run_does_nothing(monkeypatch, tmp_path):
    runs = []
    monkeypatch.setattr(setup_env, "install", lambda venv, extras: runs.append(extras))
    monkeypatch.setattr(sys, "argv", ["setup_env.py", "--venv", str(tmp_path)])
    assert setup_env.main() == setup_env.main() == 0
    assert len(runs) == 1
    monkeypatch.setattr(sys, "argv", ["setup_env.py", "--venv", str(tmp_path), "--extras", "x"])
    setup_env.main()
    assert runs == ["dev", "x"]


def test_a_failed_run_is_tried_again(monkeypatch, tmp_path, capsys):
    def fail(venv, extras):
        raise setup_env.SetupError("no network")

    monkeypatch.setattr(setup_env, "install", fail)
    monkeypatch.setattr(sys, "argv", ["setup_env.py", "--venv", str(tmp_path)])
    assert setup_env.main() == 2
    assert "no network" in capsys.readouterr().err
    assert not (tmp_path / ".tzrec-setup").exists()


def test_probe_reads_this_environment():
    found = setup_env.probe(Path(sys.executable))
    assert tuple(found["python"]) == sys.version_info[:2]
    assert found["torch"][0].startswith("2.13.")
    assert "torchrec" in found["packages"]


def test_pins_are_exact_and_leave_the_builds_alone():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all("==" in pin and "+" not in pin for pin in pins)
    names = {pin.split("==")[0].lower().replace("_", "-") for pin in pins}
    assert not names & {"torch", "torchrec", "fbgemm-gpu", "fbgemm-gpu-cpu", "tzrec"}
    assert len(names) == len(pins)


def test_make_alone_lists_the_commands():
    result = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("setup", "demo", "test", "test-slow", "check", "bench", "docs", "clean"):
        assert f"make {target} " in result.stdout
