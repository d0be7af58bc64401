"""`make bench`: what it runs, keeps and replaces."""

import importlib
import re
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module("make_bench")
    sys.path.remove(str(ROOT / "benchmarks"))
    sys.modules.pop("make_bench", None)


RESULTS = """\
# Results

## Speed

### Peers

by hand

<!-- bench:peers -->
old
<!-- /bench:peers -->

more by hand

## Later

the end
"""


def test_a_block_is_replaced_and_the_rest_is_kept(bench):
    text = bench.replaced(RESULTS, "peers", "new", bench.LONG)
    assert text == RESULTS.replace("\nold\n", "\nnew\n")
    assert bench.replaced(text, "peers", "new", bench.LONG) == text


def test_a_new_block_is_added_to_its_section(bench):
    once = bench.replaced(RESULTS, "quick-fg", "one", bench.QUICK)
    twice = bench.replaced(once, "quick-fg", "two", bench.QUICK)
    assert twice == once.replace("\none\n", "\ntwo\n")
    assert once.startswith(RESULTS.rstrip())
    assert once.count(bench.QUICK) == 1
    # A section in the middle grows at its own end.
    middle = RESULTS.replace("## Later", f"{bench.QUICK}\n\n## Later")
    added = bench.replaced(middle, "quick-fg", "one", bench.QUICK)
    assert added.index(bench.QUICK) < added.index("quick-fg") < added.index("## Later")
    assert added.endswith("the end\n")


@pytest.mark.parametrize(
    "text",
    [
        "<!-- bench:a -->\n",
        "<!-- /bench:a -->\n<!-- bench:a -->\n",
        "<!-- bench:a --><!-- /bench:a -->" * 2,
    ],
)
def test_broken_markers_are_refused(bench, text):
    with pytest.raises(ValueError, match="bench:a"):
        bench.replaced(text, "a", "new", bench.LONG)


def test_tables_are_kept_and_other_output_is_quoted(bench):
    output = "noise\n| a | b |\n|---|---|\n| 1 | 2 |\nnoise\n| c |\n|---|\n"
    assert bench.kept(output) == "| a | b |\n|---|---|\n| 1 | 2 |\n\n| c |\n|---|"
    lines = "\n".join(str(i) for i in range(99))
    kept = bench.kept(f"{lines}\n" + '{"json": 1}').splitlines()
    assert kept[0] == "```text"
    assert kept[1:-1] == [str(i) for i in range(39, 99)]
    assert kept[-1] == "```"


@pytest.fixture
def scripts(bench, tmp_path, monkeypatch):
    """Two benchmarks of which the second fails when it is told to."""
    (tmp_path / "good.py").write_text("import sys; print('| size |\\n|---|\\n|', sys.argv[1], '|')")
    (tmp_path / "bad.py").write_text("import sys; print('half'); sys.exit(3)")
    monkeypatch.setattr(
        bench, "BENCHES", {"good": bench.Bench("good.py 1", "good.py 2"),
                           "bad": bench.Bench("", "bad.py")},
    )  # fmt: skip
    run = bench.run
    monkeypatch.setattr(bench, "run", lambda form, limit: run(form, limit, tmp_path))
    path = tmp_path / "RESULTS.md"
    path.write_text(RESULTS)
    return path


def test_all_quick_forms_run_by_default(bench, scripts):
    assert bench.main(["--results", str(scripts)]) == 0
    text = scripts.read_text()
    found = re.search(r"<!-- bench:quick-good -->\n(.*)<!-- /bench:quick-good -->", text, re.DOTALL)
    assert "| 1 |" in found[1]
    assert "    python benchmarks/good.py 1\n" in found[1]
    assert re.search(r"\d{4}-\d\d-\d\d, \d+ s, \d+ cores of .+, load \d", found[1])
    assert "quick-bad" not in text


def test_named_ones_run_in_their_long_form(bench, scripts, capsys):
    assert bench.main(["good,bad", "--results", str(scripts)]) == 1
    text = scripts.read_text()
    assert "| 2 |" in text
    assert "bench:bad" not in text
    assert "bad failed: exit code 3" in capsys.readouterr().err
    assert bench.main(["good", "--quick", "--results", str(scripts)]) == 0
    assert "bench:quick-good" in scripts.read_text()


def test_an_unknown_name_is_refused(bench, scripts, capsys):
    before = scripts.read_text()
    assert bench.main(["goood", "--results", str(scripts)]) == 2
    assert "good, bad" in capsys.readouterr().err
    assert scripts.read_text() == before


def test_a_benchmark_that_hangs_is_ended_with_what_it_started(bench, tmp_path):
    (tmp_path / "slow.py").write_text(
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        "pathlib.Path(sys.argv[1]).write_text(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    pid = tmp_path / "pid"
    outcome = bench.run(f"slow.py {pid}", 3, tmp_path)
    assert outcome.problem == "ended after 3 s"
    assert outcome.seconds < 30
    status = Path("/proc") / pid.read_text() / "status"
    deadline = time.monotonic() + 10
    # Gone, or waiting for init to collect it.
    while status.exists() and "\nState:\tZ" not in status.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_every_entry_names_a_script_and_options_that_it_has(bench):
    for name, entry in bench.BENCHES.items():
        for form in filter(None, (entry.quick, entry.long)):
            script, *rest = form.split()
            text = (ROOT / "benchmarks" / script).read_text()
            for option in (word for word in rest if word.startswith("--")):
                assert f'"{option}"' in text, f"{name}: {script} has no {option}"


def test_the_markers_of_the_results_are_whole(bench):
    text = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    opened = re.findall(r"<!-- bench:(\S+) -->", text)
    assert opened == re.findall(r"<!-- /bench:(\S+) -->", text)
    assert len(opened) == len(set(opened))
    assert {name.removeprefix("quick-") for name in opened} <= set(bench.BENCHES)
