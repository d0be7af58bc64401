"""Makes an environment for each peer, below /tmp/peers, with pinned packages.

    python benchmarks/peers/venvs.py [deepctr-torch torch-rechub fuxictr]

An environment that is there already is left as it is. Peers get the torch version of ours, so
that ratios compare frameworks and not torch.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
PEERS = {
    "deepctr-torch": "requirements-deepctr.txt",
    "torch-rechub": "requirements-rechub.txt",
    "fuxictr": "requirements-fuxictr.txt",
}
# Written last: an environment without it is unfinished.
DONE = "tzrec-peer-ready"


def root() -> Path:
    """Returns the folder of the environments."""
    return Path("/tmp/peers")


def python(name: str) -> Path:
    """Returns the Python of a peer; of this process for an empty name.

    Raises:
        SystemExit: the environment is missing.
    """
    if not name:
        return Path(sys.executable)
    found = root() / name / "bin" / "python"
    if not (root() / name / DONE).exists():
        raise SystemExit(
            f"{found} is missing or unfinished.\n"
            f"  Make it with: python benchmarks/peers/venvs.py {name}"
        )
    return found


def make(name: str) -> None:
    """Makes the environment of a peer.

    Raises:
        KeyError: there is no such peer.
        subprocess.CalledProcessError: pip failed.
    """
    requirements = HERE / PEERS[name]
    directory = root() / name
    if (directory / DONE).exists():
        return
    print(f"{directory}: {requirements.name}", flush=True)
    venv.EnvBuilder(with_pip=True, clear=True).create(directory)
    pip = [str(directory / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--requirement", str(requirements)], check=True)
    (directory / DONE).touch()


def main() -> int:
    """Makes the environments that are named, or all."""
    names = sys.argv[1:] or list(PEERS)
    unknown = sorted(set(names) - set(PEERS))
    if unknown:
        raise SystemExit(f"unknown: {', '.join(unknown)}; there are: {', '.join(PEERS)}")
    for name in names:
        make(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
