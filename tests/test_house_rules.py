"""The house style that a machine can check: budgets, environment, imports."""

import ast
import collections
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tzrec"
SOURCES = sorted(p for p in PACKAGE.rglob("*.py") if not p.name.endswith("_pb2.py"))

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
# What was over budget when it was written down, with its lines. Nothing may be added and no
# number may grow; an entry that is within budget again has to go.
LARGE_FILES: dict[str, int] = {}
LARGE_FUNCTIONS: dict[str, int] = {}

# Packages that only some users have or that are slow to load: imported where they are used.
OPTIONAL = {
    "confluent_kafka",
    "faiss",
    "odps",
    "pandas",
    "prometheus_client",
    "pynvml",
    "scipy",
    "sklearn",
    "starlette",
    "tensorrt",
    "triton",
    "uvicorn",
}
# Packages of ours that answer without torch.
NO_TORCH = [
    "cli",
    "config",
    "constant.py",
    "demo",
    "errors.py",
    "fg",
    "__init__.py",
    "options.py",
    "protos",
    "registry.py",
    "tools",
]
TORCH = {"torch", "torchrec", "fbgemm_gpu", "torchmetrics", "tensordict"}


def relative(path):
    return str(path.relative_to(ROOT))


def functions(tree, prefix=""):
    """Yields (qualified name, lines) of all functions and methods."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{prefix}{node.name}", node.end_lineno - node.lineno + 1
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from functions(node, f"{prefix}{node.name}.")


def over_budget(sizes, budget, allowed):
    """Returns what breaks the budget or the allow-list, as sentences."""
    problems = []
    for name, lines in sizes.items():
        if lines > max(budget, allowed.get(name, 0)):
            problems.append(f"{name}: {lines} lines, {allowed.get(name, budget)} are allowed")
    for name, lines in allowed.items():
        if sizes.get(name, 0) <= budget:
            problems.append(f"{name}: is within budget now, take it off the list")
        elif sizes[name] < lines:
            problems.append(f"{name}: has shrunk to {sizes[name]}, lower its number")
    return problems


def test_files_are_short():
    sizes = {relative(p): len(p.read_text().splitlines()) for p in SOURCES}
    assert over_budget(sizes, MAX_FILE_LINES, LARGE_FILES) == []


def test_functions_are_short():
    sizes = {
        f"{relative(path)}:{name}": lines
        for path in SOURCES
        for name, lines in functions(ast.parse(path.read_text()))
    }
    assert len(sizes) > 100
    assert over_budget(sizes, MAX_FUNCTION_LINES, LARGE_FUNCTIONS) == []


def test_the_budget_itself():
    sizes = {"a": 50, "b": 70, "c": 90, "d": 55}
    problems = over_budget(sizes, 60, {"c": 95, "d": 80})
    assert [p.split(":")[0] for p in problems] == ["b", "c", "d"]


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_the_environment_is_read_in_one_place(path):
    if relative(path) == "tzrec/options.py":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "os":
            assert node.attr not in ("environ", "environb", "getenv", "putenv", "unsetenv"), (
                f"{relative(path)}:{node.lineno}: read the environment in tzrec/options.py"
            )
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            names = {alias.name for alias in node.names}
            assert not names & {"environ", "getenv"}, f"{relative(path)}:{node.lineno}"


def top_level_imports(path):
    """Yields (first part of the module, line) of imports that run when the file is imported."""
    pending = list(ast.parse(path.read_text()).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0], node.lineno
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            pending += [
                child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)
            ]


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_optional_packages_are_imported_where_they_are_used(path):
    banned = set(OPTIONAL)
    if path.relative_to(PACKAGE).parts[0] in NO_TORCH:
        banned |= TORCH
    found = [
        f"{relative(path)}:{line}: {name}"
        for name, line in top_level_imports(path)
        if name in banned
    ]
    assert found == []


SNAPSHOT = """
import json, logging, os, random, signal, sys, threading, warnings
def state():
    root = logging.getLogger()
    return {
        "environment": dict(os.environ),
        "log handlers": [str(root.handlers), str(logging.getLogger("tzrec").handlers)],
        "log levels": [root.level, logging.getLogger("tzrec").level],
        "random": hash(random.getstate()),
        "threads": threading.active_count(),
        "interrupt": str(signal.getsignal(signal.SIGINT)),
        "directory": os.getcwd(),
    }
"""


def run_python(code):
    result = subprocess.run(
        [sys.executable, "-c", SNAPSHOT + code], capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("\n") == 1, result.stdout
    return json.loads(result.stdout), result.stderr


def test_importing_tzrec_loads_nothing_and_changes_nothing():
    found, errors = run_python(
        """
before, loaded = state(), set(sys.modules)
import tzrec
changed = [name for name, value in state().items() if value != before[name]]
print(json.dumps({"changed": changed, "loaded": sorted(set(sys.modules) - loaded)}))
"""
    )
    assert found["changed"] == []
    # Of the standard library, only what `from __future__ import annotations` needs.
    assert set(found["loaded"]) <= {"tzrec", "__future__"}
    assert errors == ""


@pytest.mark.parametrize("module", ["tzrec.cli", "tzrec.config", "tzrec.errors", "tzrec.options"])
def test_these_answer_without_torch(module):
    found, _ = run_python(
        f"""
before = state()
import {module}
changed = [name for name, value in state().items() if value != before[name]]
print(json.dumps({{"changed": changed, "loaded": sorted(sys.modules)}}))
"""
    )
    assert found["changed"] == []
    assert not TORCH & set(found["loaded"])


def test_importing_every_module_changes_nothing():
    """Libraries that write the environment when imported are loaded first."""
    found, _ = run_python(
        """
import importlib, pkgutil
import torch, torchrec
import torch.distributed.checkpoint, torch.utils.tensorboard
torch.manual_seed(5)
before, seed = state(), torch.random.get_rng_state()
import tzrec
names = [m.name for m in pkgutil.walk_packages(tzrec.__path__, "tzrec.")
         if not m.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
changed = [name for name, value in state().items() if value != before[name]]
if not torch.equal(seed, torch.random.get_rng_state()):
    changed.append("torch seed")
print(json.dumps({"changed": changed, "modules": len(names)}))
"""
    )
    assert found["modules"] > 50
    assert found["changed"] == []


def test_test_files_have_different_names():
    """pytest imports them by name."""
    names = collections.Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_no_absolute_path_of_a_machine_is_written_down():
    suffixes = {".py", ".md", ".toml", ".config", ".txt", ".proto", ".yml", ""}
    here = str(ROOT) + "/"
    for folder in ("tzrec", "tests", "docs", "examples", "benchmarks", "scripts", ".ci"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix in suffixes and "__pycache__" not in path.parts:
                assert here not in path.read_text(), relative(path)
