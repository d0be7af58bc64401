"""The checks of ``tzrec doctor``; versions are read without importing the packages."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from tzrec.utils.memory_limit import cgroup_limits

State = Literal["ok", "warn", "bad"]

PYTHON = ((3, 10), (3, 13))
TESTED = {"torch": "2.13.0", "torchrec": "1.8.0", "fbgemm": "1.8.0"}
# torch 2.N goes with TorchRec and FBGEMM 1.(N - 5).
_MINOR_GAP = 5
FBGEMM_BUILDS = ("fbgemm-gpu-cpu", "fbgemm-gpu", "fbgemm-gpu-nightly", "fbgemm-gpu-nightly-cpu")

# Distribution → (smallest version, needed for); "" = everything.
PACKAGES: Mapping[str, tuple[str, str]] = {
    "numpy": ("1.26", ""),
    "pyarrow": ("16", ""),
    "protobuf": ("4.25", ""),
    "fsspec": ("2024.2", ""),
    "torchmetrics": ("1.0.3", ""),
    "tensorboard": ("2.16", ""),
    "numba": ("0.60", ""),
    "psutil": ("5.9", ""),
    "matplotlib": ("3.8", "tzrec importance, feature_selection --visualize"),
    "tqdm": ("4.66", ""),
    "iopath": ("0.1.10", ""),
    "pyre-extensions": ("0.0.32", ""),
    "tensordict": ("0.6", ""),
    "typing-inspect": ("0.9", ""),
}

_PROBE = """
import json, sys
out = {}
try:
    import torch
    out["torch"] = torch.__version__
    out["cuda"] = torch.version.cuda or ""
    out["devices"] = torch.cuda.device_count() if torch.cuda.is_available() else 0
    d = torch.distributed
    out["gloo"] = d.is_available() and d.is_gloo_available()
    out["nccl"] = d.is_available() and d.is_nccl_available()
    out["threads"] = torch.get_num_threads()
except Exception as error:
    out["torch_error"] = f"{type(error).__name__}: {error}"
for name in ("fbgemm_gpu", "torchrec"):
    try:
        __import__(name)
        out[name] = True
    except Exception as error:
        out[name + "_error"] = f"{type(error).__name__}: {error}"
sys.stdout.write("\\n" + json.dumps(out))
"""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: what was looked at.
        text: what was found.
        state: ``bad`` must be cured, ``warn`` may matter.
        cure: what to do.
    """

    name: str
    text: str
    state: State = "ok"
    cure: str = ""


def installed(names: tuple[str, ...]) -> dict[str, str]:
    """Returns the versions of the distributions that are there."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def torch_cuda() -> str:
    """Returns the CUDA version that torch was built for, "" for a CPU build; imports nothing."""
    spec = importlib.util.find_spec("torch")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        version_file = Path(folder) / "version.py"
        if version_file.is_file():
            match = re.search(r"^cuda.*?=\s*['\"]([\d.]+)['\"]", version_file.read_text(), re.M)
            return match[1] if match else ""
    return ""


def stack() -> Iterator[Finding]:
    """Python, and whether torch, TorchRec and FBGEMM fit each other."""
    version = sys.version_info[:2]
    fits = PYTHON[0] <= version <= PYTHON[1]
    wanted = f"{PYTHON[0][0]}.{PYTHON[0][1]} to {PYTHON[1][0]}.{PYTHON[1][1]}"
    yield Finding(
        "python",
        f"{platform.python_version()} at {sys.executable}",
        "ok" if fits else "bad",
        "" if fits else f"use Python {wanted}",
    )
    versions = installed(("torch", "torchrec", *FBGEMM_BUILDS))
    yield from check_stack(versions, torch_cuda())


def check_stack(versions: Mapping[str, str], cuda: str) -> Iterator[Finding]:
    """Judges versions.

    Args:
        versions: distribution → version, of those that are installed.
        cuda: CUDA version of torch, "" for a CPU build.
    """
    torch = versions.get("torch", "")
    builds = [name for name in FBGEMM_BUILDS if name in versions]
    if not torch:
        yield Finding("torch", "not installed", "bad", _install_torch())
        minor = _minor(TESTED["torch"]) - _MINOR_GAP
    else:
        known = torch.startswith("2.") and _minor(torch) > _MINOR_GAP
        tested = torch.partition("+")[0] == TESTED["torch"]
        yield Finding(
            "torch",
            f"{torch} ({f'CUDA {cuda}' if cuda else 'CPU'} build)"
            + ("" if tested else f"; tested is {TESTED['torch']}"),
            "ok" if tested else ("warn" if known else "bad"),
            "" if known else _install_torch(),
        )
        minor = _minor(torch) - _MINOR_GAP if known else _minor(TESTED["torch"]) - _MINOR_GAP
    yield from _torchrec(versions.get("torchrec", ""), torch, minor)
    yield from _fbgemm({name: versions[name] for name in builds}, torch, cuda, minor)


def _torchrec(version: str, torch: str, minor: int) -> Iterator[Finding]:
    # Without --no-deps pip would pull the CUDA build of FBGEMM over the CPU one.
    install = f"pip install --no-deps torchrec==1.{minor}.0"
    if not version:
        yield Finding("torchrec", "not installed", "bad", install)
    elif torch and not version.startswith(f"1.{minor}."):
        yield Finding("torchrec", f"{version} does not fit torch {torch}", "bad", install)
    else:
        yield Finding("torchrec", version)


def _fbgemm(builds: Mapping[str, str], torch: str, cuda: str, minor: int) -> Iterator[Finding]:
    right = "fbgemm-gpu" if cuda else "fbgemm-gpu-cpu"
    install = f"pip install --no-deps {right}==1.{minor}.0"
    shown = ", ".join(f"{name} {version}" for name, version in builds.items())
    if not builds:
        yield Finding("fbgemm", "not installed", "bad", install)
    elif len(builds) > 1:
        yield Finding(
            "fbgemm",
            f"{shown}: two builds, one shadows the other",
            "bad",
            f"pip uninstall -y {' '.join(builds)} && {install}",
        )
    elif right not in builds:
        yield Finding(
            "fbgemm",
            f"{shown} does not fit a {'CUDA' if cuda else 'CPU'} build of torch",
            "bad",
            f"pip uninstall -y {' '.join(builds)} && {install}",
        )
    elif torch and not builds[right].startswith(f"1.{minor}."):
        yield Finding("fbgemm", f"{shown} does not fit torch {torch}", "bad", install)
    else:
        yield Finding("fbgemm", shown)


def _minor(version: str) -> int:
    match = re.match(r"\d+\.(\d+)", version)
    return int(match[1]) if match else 0


def _install_torch() -> str:
    return f"pip install torch=={TESTED['torch']}   (or run `make setup`, which chooses the build)"


def runtime(timeout: float = 180.0) -> Iterator[Finding]:
    """Whether the libraries load, in a process of their own, and what they can do."""
    if importlib.util.find_spec("torch") is None:
        return
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        out = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        yield Finding("import", "importing torch, FBGEMM and TorchRec crashed", "bad", "see above")
        return
    yield from judge_runtime(out)


def judge_runtime(out: Mapping[str, object]) -> Iterator[Finding]:
    """Judges what the probe process saw."""
    for key, name in (("torch", "torch"), ("fbgemm_gpu", "fbgemm"), ("torchrec", "torchrec")):
        if f"{key}_error" in out:
            text = str(out[f"{key}_error"]).splitlines()[0][:150]
            cure = "install the build that fits, as said above"
            yield Finding("import", f"{name} does not load: {text}", "bad", cure)
    if "torch" not in out:
        return
    yield Finding(
        "gloo",
        "available" if out.get("gloo") else "not available: one process only",
        "ok" if out.get("gloo") else "warn",
    )
    if out.get("cuda"):
        devices = int(str(out.get("devices", 0)))
        yield Finding(
            "gpu",
            f"{devices} device{'s' if devices != 1 else ''}, "
            f"nccl {'available' if out.get('nccl') else 'not available'}",
            "ok" if devices and out.get("nccl") else "warn",
            "" if devices else "no GPU is visible: training runs on the CPU",
        )
    else:
        yield Finding("gpu", "none: this torch runs on the CPU")


def packages() -> Iterator[Finding]:
    """The other packages."""
    found = installed(tuple(PACKAGES))
    wrong = []
    for name, (least, _) in PACKAGES.items():
        if name not in found:
            yield Finding(name, "not installed", "bad", f"pip install '{name}>={least}'")
            wrong.append(name)
        elif _release(found[name]) < _release(least):
            cure = f"pip install -U '{name}>={least}'"
            yield Finding(name, f"{found[name]} is too old", "bad", cure)
            wrong.append(name)
    if not wrong:
        yield Finding("packages", ", ".join(f"{name} {found[name]}" for name in list(PACKAGES)[:4]))


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def machine() -> Iterator[Finding]:
    """Cores, memory, file systems."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limit = _cgroup("cpu.max").split()
    if len(limit) == 2 and limit[0].isdigit():
        allowed = int(limit[0]) / int(limit[1])
        yield Finding("cores", f"{cores}, of which this container may use {allowed:g}")
    else:
        yield Finding("cores", str(cores))
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    total = min([total, *cgroup_limits()])
    small = total < 4 << 30
    yield Finding(
        "memory",
        f"{total / 2**30:.1f} GiB",
        "warn" if small else "ok",
        "large embedding tables will not fit" if small else "",
    )
    for name, path in (("disk", Path.cwd()), ("temporary", Path(tempfile.gettempdir()))):
        yield _disk(name, path)
    yield from _file_systems()


def _disk(name: str, path: Path) -> Finding:
    if not os.access(path, os.W_OK):
        return Finding(name, f"{path} cannot be written", "bad", "work in a folder of your own")
    free = shutil.disk_usage(path).free
    low = free < 1 << 30
    return Finding(
        name,
        f"{free / 2**30:.1f} GiB free at {path}",
        "warn" if low else "ok",
        "checkpoints need space" if low else "",
    )


def _file_systems() -> Iterator[Finding]:
    if importlib.util.find_spec("fsspec") is None:
        return
    remote = {"s3://": "s3fs", "gs://": "gcsfs", "oss://": "ossfs"}
    there = [scheme for scheme, module in remote.items() if importlib.util.find_spec(module)]
    missing = {scheme: module for scheme, module in remote.items() if scheme not in there}
    text = f"local, memory://{''.join(', ' + scheme for scheme in there)}"
    more = ", ".join(f"{scheme} needs {module}" for scheme, module in missing.items())
    yield Finding("files", text + (f" ({more})" if more else ""))


def _cgroup(name: str) -> str:
    try:
        return Path("/sys/fs/cgroup", name).read_text().strip()
    except OSError:
        return ""
