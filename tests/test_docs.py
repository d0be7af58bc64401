"""The documentation is true: its commands run as they stand, its links lead somewhere."""

import dataclasses
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tzrec.config.model_facts import MODELS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

_FENCE = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*?) -->\n)?^```(?P<language>[a-z]*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")


@dataclasses.dataclass(frozen=True)
class Block:
    """Commands of a page.

    Attributes:
        code: what a reader would paste.
        line: where it starts.
        note: the comment above it: ``not run …``, ``fails with N``, or ``in another terminal``:
            a server that runs until the page ends.
    """

    code: str
    line: int
    note: str

    @property
    def is_run(self):
        return not self.note.startswith("not run")

    @property
    def is_server(self):
        return self.note == "in another terminal"

    @property
    def exit_code(self):
        failing = re.fullmatch(r"fails with (\d+)", self.note)
        return int(failing.group(1)) if failing else 0


def blocks(page):
    """The shell blocks of a page."""
    text = page.read_text()
    return [
        Block(m["code"], text.count("\n", 0, m.start("code")) + 1, m["note"] or "")
        for m in _FENCE.finditer(text)
        if m["language"] in ("bash", "console", "sh")
    ]


def name(path):
    return str(path.relative_to(ROOT))


def test_every_fence_is_found():
    for page in PAGES:
        fences = re.findall(r"^```", page.read_text(), re.MULTILINE)
        assert len(fences) == 2 * len(_FENCE.findall(page.read_text())), name(page)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Socket of a process that runs `tzrec` commands."""
    path = tmp_path_factory.mktemp("server") / "socket"
    script = Path(__file__).with_name("command_server.py")
    environment = os.environ | {  # noqa: TID251
        "PYTHONPATH": str(ROOT)
    }
    process = subprocess.Popen([sys.executable, script, "--serve", path], env=environment)
    try:
        while not path.exists():
            assert process.poll() is None, "the server did not start"
            time.sleep(0.05)
        yield path
    finally:
        process.kill()
        process.wait()


class Shell:
    """Runs blocks in a directory, with `tzrec` and `python` of this environment.

    The port of servers, 8000 in the pages, is a free one.
    """

    def __init__(self, root, commands):
        self._tools, self._work = root / "bin", root / "work"
        self._tools.mkdir()
        self._work.mkdir()
        self._servers = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        client = Path(__file__).with_name("command_server.py")
        fork = f'exec "{sys.executable}" -S "{client}" "{commands}" "$@"'
        # A server is a process of its own: forks are waited for.
        real = f'[ "$1" != serve ] || exec "{sys.executable}" -m tzrec.cli "$@"'
        scripts = {"python": f'exec "{sys.executable}" "$@"', "tzrec": f"{real}\n{fork}"}
        for tool, text in scripts.items():
            script = self._tools / tool
            script.write_text(f"#!/bin/sh\n{text}\n")
            script.chmod(0o755)

    def run(self, code):
        return subprocess.run(
            self._command(code), cwd=self._work, capture_output=True, text=True, check=False
        )

    def start(self, code):
        """Starts a server and waits until it is ready."""
        log = (self._work.parent / "server.log").open("w+")
        process = subprocess.Popen(
            self._command(code), cwd=self._work, stdout=log, stderr=log, start_new_session=True
        )
        self._servers.append(process)
        deadline = time.monotonic() + 120
        while not self._is_ready():
            log.seek(0)
            assert process.poll() is None, log.read()
            assert time.monotonic() < deadline, log.read()
            time.sleep(0.1)

    def stop(self):
        """Ends the servers."""
        while self._servers:
            process = self._servers.pop()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)

    def _command(self, code):
        code = re.sub(r"\b8000\b", str(self._port), code)
        script = f'set -e\nexport PATH="{self._tools}:$PATH" PYTHONPATH="{ROOT}"\n{code}'
        return ["bash", "-c", script]

    def _is_ready(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/ready", timeout=10):
                return True
        except (urllib.error.URLError, OSError):
            return False


@pytest.fixture
def shell(tmp_path, server):
    made = Shell(tmp_path, server)
    yield made
    made.stop()


def run_page(page, shell):
    run = [block for block in blocks(page) if block.is_run]
    if any("curl " in block.code for block in run) and shutil.which("curl") is None:
        pytest.skip("curl is not there")
    for block in run:
        if block.is_server:
            shell.start(block.code)
            continue
        started = time.monotonic()
        result = shell.run(block.code)
        where = f"{name(page)}:{block.line} ({time.monotonic() - started:.0f} s)"
        print(f"--- {where}\n{result.stdout}{result.stderr}")
        assert result.returncode == block.exit_code, where
        assert "Traceback" not in result.stderr, where
    shell.stop()


def test_readme_runs(shell):
    run_page(ROOT / "README.md", shell)


def test_own_data_runs(shell):
    run_page(ROOT / "docs" / "own_data.md", shell)


def test_tutorial_and_serving_run(shell):
    run_page(ROOT / "docs" / "tutorial.md", shell)
    # These go on with the models of the tutorial.
    run_page(ROOT / "docs" / "export.md", shell)
    run_page(ROOT / "docs" / "aot.md", shell)
    run_page(ROOT / "docs" / "serving.md", shell)


def test_matching_runs(shell):
    run_page(ROOT / "docs" / "matching.md", shell)


def test_other_pages_have_no_commands_that_nobody_runs():
    run = {"README.md"}
    run |= {
        f"docs/{stem}.md"
        for stem in ("own_data", "tutorial", "export", "aot", "serving", "matching")
    }
    for page in PAGES:
        if name(page) not in run:
            assert not [block for block in blocks(page) if block.is_run], name(page)


def anchors(page):
    """Anchors of the headings, as they are made for a page on the web."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for target in _LINK.findall(page.read_text()):
        if target.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        if name(linked) == "benchmarks/RESULTS.md" and not linked.exists():
            pytest.skip("RESULTS.md is not written yet")
        assert linked.exists(), f"{name(page)}: {target}"
        if anchor:
            assert anchor in anchors(linked), f"{name(page)}: {target}"


def test_readme_lists_the_models_that_there_are():
    table = (ROOT / "README.md").read_text().split("## Models")[1].split("\n## ")[0]
    fields = set(re.findall(r"^\| [^|]+ \| `(\w+)` \|", table, re.MULTILINE))
    assert {field.replace("_", "") for field in fields} == {
        {"WideAndDeep": "wideanddeep", "CustomModel": "custommodel"}.get(m, m.lower())
        for m in MODELS
    }


def test_the_makefile_has_the_commands_of_the_readme():
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = set()
    for page in PAGES:
        used |= set(re.findall(r"\bmake ([a-z-]+)\b`|^make ([a-z-]+)", page.read_text(), re.M))
    used = {target for pair in used for target in pair if target}
    assert used
    assert used <= targets
    assert {"help", "setup", "demo", "test", "check", "bench", "docs"} <= targets
