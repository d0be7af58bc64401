"""Writes the table of ``docs/aot.md`` from what the slow test of the examples printed.

    python -m pytest tests/deploy/test_deploy_aoti_examples.py -m slow -s | tee log
    python tests/deploy/aoti_page.py log

A run of some of them will do: cells of others stay.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests")]
from example_configs import CONFIGS, stem  # noqa: E402

PAGE = ROOT / "docs" / "aot.md"
TARGETS = ("aoti", "aoti_unified")
NOT_RUN = "not run"
# Whole models that AOTInductor of torch 2.13 makes wrong code of, although torch.export's graph and
# torch.compile of it are right. An export compares and refuses.
WRONG = {("mind_taobao", "user")}

HEAD = (
    "| config | part | `aoti` | seconds | `aoti_unified` | seconds |\n"
    "| --- | --- | --- | --- | --- | --- |\n"
)
_PRINTED = re.compile(r"\| (\w+) \| (\w*) \| (aoti\w*) \| (\S+) \| (\d+) s \|")

# (config, part) → target → (largest difference, seconds)
Rows = dict[tuple[str, str], dict[str, tuple[str, str]]]


def read_page(text: str) -> Rows:
    """Returns what the page says."""
    rows: Rows = {}
    for line in _table(text).splitlines():
        config, part, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        pairs = zip(TARGETS, zip(cells[::2], cells[1::2], strict=True), strict=True)
        run = {target: pair for target, pair in pairs if pair[0] != NOT_RUN}
        if run:
            rows[config, part] = run
    return rows


def read_log(text: str) -> Rows:
    """Returns what the test printed."""
    rows: Rows = {}
    for config, part, target, gap, seconds in _PRINTED.findall(text):
        rows.setdefault((config, part or "model"), {})[target] = (gap, seconds)
    return rows


def written(text: str, rows: Rows, configs: Iterable[str]) -> str:
    """Returns the page with these rows; a config without any gets one that says so."""
    known = {config for config, _ in rows}
    rows = rows | {(config, "model"): {} for config in configs if config not in known}
    lines = []
    for (config, part), found in sorted(rows.items()):
        cells = [cell for target in TARGETS for cell in found.get(target, (NOT_RUN, ""))]
        lines.append(f"| {' | '.join([config, part, *cells])} |\n")
    return text.replace(HEAD + _table(text), HEAD + "".join(lines))


def _table(text: str) -> str:
    after = text.split(HEAD, 1)[1]
    return "".join(re.match(r"(?:\|.*\n)*", after).group(0))  # type: ignore[union-attr]


if __name__ == "__main__":
    page = PAGE.read_text()
    merged = read_page(page)
    for log in sys.argv[1:]:
        for key, found in read_log(Path(log).read_text()).items():
            merged[key] = merged.get(key, {}) | found
    PAGE.write_text(written(page, merged, map(stem, CONFIGS)))
