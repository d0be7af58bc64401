"""Runs benchmarks and writes what they print between the markers of RESULTS.md.

    make bench                        the quick form of every benchmark (section "Quick run")
    make bench WHAT=serving,peers     the long form of these
    make bench WHAT=list              what there is

A block of RESULTS.md looks like this; all between its markers is generated::

    <!-- bench:peers -->
    ...
    <!-- /bench:peers -->

The long form of a benchmark goes to the block of its name, the quick form to ``quick-NAME``. A
block that is missing is added at the end of the section "Generated" or "Quick run". Of what a
benchmark prints the Markdown tables are kept; if there are none, its last lines.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
QUICK, LONG = "## Quick run", "## Generated"
INTRODUCTIONS = {
    QUICK: "`make bench`: small sizes, one run each, to see that nothing broke. Noisy.",
    LONG: "`make bench WHAT=NAME,NAME`: the long forms that have no section of their own.",
}
LAST_LINES = 60


@dataclass(frozen=True)
class Bench:
    """One benchmark.

    Attributes:
        quick: arguments of the quick form, script first; empty: it has none.
        long: arguments of the long form.
        limit: seconds after which the quick form is ended; the long form gets ten times that.
    """

    quick: str
    long: str
    limit: float = 600


BENCHES = {
    "criteo": Bench(
        "criteo_shaped.py --rows 200000 --threads 1",
        "criteo_shaped.py --rows 1000000 --threads 2",
    ),
    "taobao": Bench(
        "taobao_shaped.py --rows 100000 --threads 1",
        "taobao_shaped.py --rows 300000 --threads 2 --model multi_tower_din",
    ),
    "step_budget": Bench(
        "step_budget.py --models deepfm --precisions FP32 --threads 1 --steps 8 --rows 50000",
        "step_budget.py",
    ),
    "scale": Bench(
        "scale.py --what features --values 10,50 --rounds 1 --runs 1 --fresh "
        "--dir experiments/scale_quick --plots experiments/scale_quick",
        "scale.py",
    ),
    "bf16_auc": Bench("", "bf16_auc.py"),
    "startup": Bench("startup.py --rows 100000 --repeat 1", "startup.py"),
    "sparse_optim": Bench("sparse_optim.py --steps 5", "sparse_optim.py"),
    "loader": Bench(
        "loader.py --rows 100000 --workers 1 --work-ms 0 --repeat 1", "loader.py --repeat 3"
    ),
    "samplers": Bench(
        "samplers.py --items 100000 --users 100000 --edges 1000000",
        "samplers.py --items 10000000 --users 10000000 --edges 100000000",
    ),
    "sampler_training": Bench(
        "sampler_training.py --rows 10000 --repeat 1", "sampler_training.py"
    ),
    "metrics": Bench("metrics.py --rows 500000 --groups 50000 --check", "metrics.py --check"),
    "overhead": Bench(
        "overhead.py --steps 200", "overhead.py --config criteo --summaries all"
    ),
    "fg": Bench("fg.py --seconds 0.1", "fg.py"),
    "fg_kernels": Bench("fg_kernels.py --seconds 0.05", "fg_kernels.py"),
    "serving": Bench("serving.py --seconds 2", "serving.py"),
    "tiling": Bench("tiling.py --steps 10 --repeats 5", "tiling.py"),
    "compiled": Bench("", "compiled.py"),
    "serving_soak": Bench("", "serving_soak.py"),
    "peers": Bench("peers/compare.py --quick --again --dir experiments/peers_quick",
                   "peers/compare.py --again", 3600),
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What a run of a benchmark gave.

    Attributes:
        arguments: script and arguments.
        output: of its standard output.
        seconds: it took.
        problem: why it failed, or empty.
    """

    arguments: str
    output: str
    seconds: float
    problem: str = ""


def main(arguments: list[str] | None = None) -> int:
    """Runs what is asked for; 1 if any failed, 2 for a name that is not known."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", default="", help="names, by commas; list; empty: all")
    parser.add_argument("--quick", action="store_true", help="the quick form of what is named")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    if args.what == "list":
        for name, bench in BENCHES.items():
            print(f"{name:<18}quick: {bench.quick or '-':<60} long: {bench.long}")
        return 0
    names = [name for name in args.what.split(",") if name]
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are: {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    quick = args.quick or not names
    failed = []
    for name in names or BENCHES:
        bench = BENCHES[name]
        form = bench.quick if quick else bench.long
        if not form:
            continue
        print(f"== {name}: {form}", flush=True)
        outcome = run(form, bench.limit if quick else 10 * bench.limit)
        if outcome.problem:
            print(f"{name} failed: {outcome.problem}", file=sys.stderr, flush=True)
            failed.append(name)
            continue
        publish(args.results, name, outcome, quick=quick)
        print(f"   {outcome.seconds:.0f} s", flush=True)
    if failed:
        print(f"failed, and left as it was in {args.results}: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def run(form: str, limit: float, folder: Path = ROOT / "benchmarks") -> Outcome:
    """Runs a script of ``folder``; its errors are shown, its output is kept.

    Args:
        form: script and arguments.
        limit: seconds.
        folder: of the scripts.
    """
    script, *rest = form.split()
    started = time.perf_counter()
    command = [sys.executable, str(folder / script), *rest]
    problem = ""
    # In a session of its own, so that what it has started ends with it.
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=limit)
            if process.returncode:
                problem = f"exit code {process.returncode}"
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            output, problem = "", f"ended after {limit:g} s"
    return Outcome(form, output, time.perf_counter() - started, problem)


def publish(path: Path, name: str, outcome: Outcome, *, quick: bool) -> None:
    """Writes an outcome into its block of ``path``; another process sees the old or the new."""
    # Read now: others may have written while the benchmark ran.
    text = path.read_text()
    heading = QUICK if quick else LONG
    title = f"**{name}**\n\n" if quick else ""
    new = replaced(text, f"{'quick-' if quick else ''}{name}", title + block(outcome), heading)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(new)
    os.replace(unfinished, path)


def block(outcome: Outcome) -> str:
    """Returns the Markdown of an outcome: tables or last lines, command, day, machine."""
    command = f"    python benchmarks/{outcome.arguments}"
    day = dt.datetime.now(tz=dt.timezone.utc).date().isoformat()
    made = f"{day}, {outcome.seconds:.0f} s, {machine()}."
    return f"{kept(outcome.output)}\n\n{command}\n\n{made}"


def kept(output: str) -> str:
    """Returns the Markdown tables of an output, or its last lines as a listing."""
    tables = re.findall(r"(?:^\|.*\|[ ]*\n)+", output + "\n", flags=re.MULTILINE)
    if tables:
        return "\n".join(tables).strip()
    lines = [line.rstrip() for line in output.splitlines()]
    # The facts of a benchmark that ends in JSON stand above it already.
    lines = [line for line in lines if not line.startswith("{")]
    while lines and not lines[0]:
        lines.pop(0)
    return "\n".join(["```text", *lines[-LAST_LINES:], "```"])


def replaced(text: str, name: str, content: str, heading: str) -> str:
    """Returns ``text`` with the block ``name`` replaced, or added to the section ``heading``.

    Args:
        text: Markdown.
        name: of the block.
        content: what goes between the markers.
        heading: section for a new block; added at the end of the text if it is missing.

    Raises:
        ValueError: a marker stands there twice, or without its partner.
    """
    start, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    if text.count(start) != text.count(end) or text.count(start) > 1:
        raise ValueError(
            f"{start} and {end} have to stand there once, in this order, or not at all"
        )
    new = f"{start}\n{content}\n{end}"
    if start in text:
        if text.index(start) > text.index(end):
            raise ValueError(f"{end} stands before {start}")
        return text[: text.index(start)] + new + text[text.index(end) + len(end) :]
    if f"\n{heading}\n" not in text:
        text = f"{text.rstrip()}\n\n{heading}\n\n{INTRODUCTIONS[heading]}\n"
    at = text.index(f"\n{heading}\n") + len(heading) + 2
    following = re.search(r"^## ", text[at:], flags=re.MULTILINE)
    cut = at + following.start() if following else len(text)
    return f"{text[:cut].rstrip()}\n\n{new}\n\n{text[cut:]}".rstrip() + "\n"


def machine() -> str:
    """Returns cores, processor and system."""
    model = platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), flags=re.MULTILINE)
        model = found.group(1) if found else model
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores of {model}, load {load:.1f}"


if __name__ == "__main__":
    sys.exit(main())
