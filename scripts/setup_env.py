"""Makes .venv with everything that tzrec needs; does nothing when it is up to date.

Run by `make setup`, with the Python that the environment shall have:

    make setup                          python3
    make setup PYTHON=python3.12        another one
    make setup PYTHON=/opt/x/bin/python one that has torch already: that torch is taken

Steps: a virtual environment; torch as found, or the tested version; the FBGEMM build that fits
that torch (`fbgemm-gpu-cpu` for a CPU build, `fbgemm-gpu` for a CUDA one, never both, since they
are one package under two names); TorchRec without its dependencies, since it asks for
`fbgemm-gpu` whatever torch is; the rest at the versions of constraints.txt.

Uses the standard library only, and pip as it is configured.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TORCH = "2.13.0"
TORCHREC = "1.8.0"
FBGEMM = "1.8.0"
OLDEST, NEWEST = (3, 10), (3, 13)

_PROBE = """
import json, sys
from importlib.metadata import distributions
names = {d.metadata["Name"].lower().replace("_", "-"): d.version for d in distributions()}
try:
    import torch
    torch = [torch.__version__, torch.version.cuda]
except ImportError:
    torch = None
print(json.dumps({"python": sys.version_info[:2], "torch": torch, "packages": names}))
"""


class SetupError(Exception):
    """Something that the user has to change."""


def main() -> int:
    """Brings .venv up to date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    parser.add_argument("--extras", default="dev", help="extras of pyproject.toml, comma list")
    parser.add_argument("--force", action="store_true", help="run all steps again")
    args = parser.parse_args()
    try:
        check_python(sys.version_info[:2])
        stamp = args.venv / ".tzrec-setup"
        wanted = fingerprint(args.extras)
        if not args.force and stamp.is_file() and stamp.read_text() == wanted:
            return 0
        install(args.venv, args.extras)
        stamp.write_text(wanted)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 2
    return 0


def check_python(version: tuple[int, int]) -> None:
    """Raises SetupError for a Python that the dependencies have no wheels for."""
    if not OLDEST <= version <= NEWEST:
        raise SetupError(
            f"this is Python {_dotted(version)}; tzrec needs {_dotted(OLDEST)} to "
            f"{_dotted(NEWEST)}.\n  Name another one: make setup PYTHON=python3.12"
        )


def fingerprint(extras: str) -> str:
    """Returns a text that changes when the environment has to be made anew."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt", "scripts/setup_env.py"):
        digest.update((ROOT / name).read_bytes())
    return f"{digest.hexdigest()} {ROOT} {extras}\n"


def install(venv: Path, extras: str) -> None:
    """Runs all steps."""
    python = make_venv(venv)
    pip = Pip(python)
    found = probe(python)
    if found["torch"] is None:
        _say(f"torch {TORCH}")
        pip.install(f"torch=={TORCH}")
        found = probe(python)
    version, cuda = found["torch"] or (None, None)
    check_torch(version)
    _say(f"torch {version} is a {f'CUDA {cuda}' if cuda else 'CPU'} build")
    right, wrong = fbgemm_for(cuda)
    if wrong in found["packages"]:
        # Both names own the same files: removing one breaks the other.
        pip.run("uninstall", "--yes", right, wrong)
    _say(f"{right} {FBGEMM}, torchrec {TORCHREC}")
    pip.install("--no-deps", f"{right}=={FBGEMM}", f"torchrec=={TORCHREC}")
    if cuda and "gpu" not in extras.split(","):
        extras = f"{extras},gpu"
    _say(f"tzrec[{extras}] and what it needs")
    constraints = ROOT / "constraints.txt"
    pip.install("--constraint", str(constraints), "--editable", f"{ROOT}[{extras}]")
    after = probe(python)
    if after["torch"] != found["torch"] or wrong in after["packages"]:
        raise SetupError(
            f"the last step changed torch from {found['torch']} to {after['torch']} or brought "
            f"{wrong}; a package in constraints.txt asks for it"
        )
    _say(f"{venv} is ready")


def make_venv(venv: Path) -> Path:
    """Makes the environment if it is not there; returns its Python."""
    python = venv / "bin" / "python"
    if python.exists():
        return python
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        raise SetupError(
            f"{sys.executable} cannot make virtual environments.\n"
            "  Debian, Ubuntu: apt-get install python3-venv"
        )
    command = [sys.executable, "-m", "venv", str(venv)]
    with_torch = importlib.util.find_spec("torch") is not None
    if with_torch:
        command.append("--system-site-packages")
    _say(f"{venv}{' on top of the packages of ' + sys.executable if with_torch else ''}")
    if subprocess.run(command, check=False).returncode != 0:
        raise SetupError(f"{' '.join(command)} failed; its message is above")
    return python


def probe(python: Path) -> dict:
    """Returns the versions that ``python`` sees."""
    result = subprocess.run([python, "-c", _PROBE], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise SetupError(
            f"{python} does not work; remove {python.parent.parent} and run this again.\n"
            f"{result.stderr}"
        )
    found = json.loads(result.stdout)
    check_python(tuple(found["python"]))
    return found


def check_torch(version: str | None) -> None:
    """Raises SetupError for a torch that FBGEMM's binaries do not fit."""
    minor = TORCH.rsplit(".", 1)[0]
    if version is None or not version.startswith(f"{minor}."):
        raise SetupError(
            f"found torch {version}, but FBGEMM {FBGEMM} and TorchRec {TORCHREC} are built for "
            f"torch {minor}.\n  Name a Python without torch or with torch {TORCH}: "
            "make setup PYTHON=…"
        )


def fbgemm_for(cuda: str | None) -> tuple[str, str]:
    """Returns the FBGEMM package that fits a torch build, and the one that does not."""
    pair = ("fbgemm-gpu", "fbgemm-gpu-cpu")
    return pair if cuda else pair[::-1]


class Pip:
    """pip of one environment."""

    def __init__(self, python: Path) -> None:
        self._python = python

    def install(self, *arguments: str) -> None:
        """Runs ``pip install``."""
        self.run("install", "--progress-bar", "off", *arguments)

    def run(self, *arguments: str) -> None:
        """Runs pip; shows what it says if it fails.

        Otherwise pip would report as an error that TorchRec asks for the other FBGEMM.
        """
        flags = ["--disable-pip-version-check", "--no-input"]
        command = [str(self._python), "-m", "pip", *arguments, *flags]
        result = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if result.returncode != 0:
            raise SetupError(f"pip {' '.join(arguments)} failed:\n{result.stdout}")


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def _say(text: str) -> None:
    print(f"setup: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
