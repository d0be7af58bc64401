"""Runs the examples in docs/features and shows what they give.

An example is a fenced block ``fg``: feature configs or the list of entries of an ``fg.json``,
``---``, and columns as YAML-like lines ``column: JSON list of rows``. The block ``text`` behind it
is its output.

Usage: python scripts/feature_pages.py          (writes the outputs into the pages)
       python scripts/feature_pages.py --check  (fails where a page is out of date)
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
from google.protobuf import text_format

from tzrec.features.feature import FgMode, create_features
from tzrec.features.generation import create_handler
from tzrec.fg import FgHandler
from tzrec.fg.parsed import Parsed
from tzrec.protos.pipeline_pb2 import EasyRecConfig

PAGES = Path(__file__).resolve().parent.parent / "docs" / "features"
_EXAMPLE = re.compile(r"```fg\n(?P<example>.*?)```\n\n```text\n(?P<output>.*?)```", re.DOTALL)


def render(page: str) -> str:
    """Returns a page with the outputs of its examples."""
    return _EXAMPLE.sub(lambda m: _block(m["example"]), page)


def run(example: str) -> str:
    """Returns the output of an example: a line per feature, a list per row."""
    text, _, data = example.partition("---\n")
    if text.startswith("["):
        handler = FgHandler({"features": json.loads(text)})
        generated = handler.process_arrow(_columns(data))
        return "".join(f"{name}: {_show(parsed)}\n" for name, parsed in generated.items())
    configs = text_format.Parse(_as_config(text), EasyRecConfig()).feature_configs
    features = create_features(list(configs), FgMode.FG_DAG)
    found = create_handler(features).process_arrow(_columns(data))
    return "".join(
        f"{f.name}: {_show(f.reshape(found[f.name]))}\n" for f in features if not f.is_stub
    )


def _block(example: str) -> str:
    return f"```fg\n{example}```\n\n```text\n{run(example)}```"


def _as_config(text: str) -> str:
    head = 'train_input_path: "" eval_input_path: "" model_dir: ""\n'
    return head + text


def _columns(data: str) -> dict[str, pa.Array]:
    columns = {}
    for line in data.splitlines():
        name, _, rows = line.partition(":")
        values = json.loads(rows)
        if any(isinstance(row, dict) for row in values):
            values = [None if row is None else list(row.items()) for row in values]
            kind = pa.float32() if _has_numbers(values) else pa.string()
            columns[name] = pa.array(values, pa.map_(pa.string(), kind))
        else:
            columns[name] = pa.array(values)
    return columns


def _has_numbers(rows: list[list[tuple[str, object]] | None]) -> bool:
    return any(not isinstance(value, str) for row in rows if row for _, value in row)


def _show(parsed: Parsed) -> str:
    values = [_text(value) for value in _flat(parsed)]
    if parsed.key_lengths is not None:
        values = _split(values, parsed.key_lengths)
    if parsed.lengths is not None:
        values = _split(values, parsed.lengths)
    return f"[{', '.join(values)}]"


def _flat(parsed: Parsed) -> list[object]:
    if parsed.weights is not None:
        return [f"{i} x {_text(w)}" for i, w in zip(parsed.values, parsed.weights, strict=True)]
    if parsed.values.ndim == 2 and parsed.values.shape[1] > 1:
        return [f"({', '.join(map(_text, row))})" for row in parsed.values]
    return list(parsed.values.reshape(-1))


def _text(value: object) -> str:
    return f"{float(value):.6g}" if isinstance(value, np.floating) else str(value)


def _split(values: list[str], lengths: np.ndarray) -> list[str]:
    ends = np.cumsum(lengths)
    return [
        f"[{', '.join(values[end - size : end])}]" for end, size in zip(ends, lengths, strict=True)
    ]


def main() -> int:
    """Writes the pages, or compares them."""
    old = []
    for path in sorted(PAGES.glob("*.md")):
        page = path.read_text(encoding="utf-8")
        new = render(page)
        if new != page:
            old.append(path.name)
            if "--check" not in sys.argv:
                path.write_text(new, encoding="utf-8")
    if old and "--check" in sys.argv:
        print(f"out of date: {', '.join(old)}; run python scripts/feature_pages.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
