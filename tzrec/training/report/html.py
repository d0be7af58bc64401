"""Pieces of the page as HTML text, and its style sheet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from tzrec.training.report.charts import Chart

STYLE = """
:root { color-scheme: light dark; --text: #1c2127; --soft: #5f6b7a; --back: #ffffff;
  --card: #f6f7f9; --rule: #d9dee5; --grid: #e6e9ee;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #b5589a; --c4: #b98500; --c5: #6a6fc4; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e8ed; --soft: #9aa7b6; --back: #14181d;
  --card: #1d232a; --rule: #36404b; --grid: #2a323b;
  --c0: #56b4e9; --c1: #f0883e; --c2: #3fc79a; --c3: #e08cc4; --c4: #e6b93c; --c5: #a3a7f0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 24px; background: var(--back);
  color: var(--text); font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 26px; margin: 0; } h2 { font-size: 19px; margin: 36px 0 10px;
  border-bottom: 1px solid var(--rule); padding-bottom: 4px; }
h3 { font-size: 15px; margin: 18px 0 6px; } p { margin: 4px 0; }
.soft, figcaption, small { color: var(--soft); font-size: 13px; }
.tiles { display: flex; flex-wrap: wrap; gap: 10px; margin: 18px 0; }
.tile { background: var(--card); border-radius: 8px; padding: 10px 16px; }
.tile b { display: block; font-size: 20px; font-variant-numeric: tabular-nums; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr));
  gap: 18px; align-items: start; }
figure { margin: 0; }
figure b { font-weight: 600; font-size: 14px; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 11px; } svg text.axis { font-size: 12px; }
svg text.in { fill: var(--text); }
.grid { stroke: var(--grid); fill: none; } .frame { stroke: var(--rule); fill: none; }
.line, .thin, .diagonal { fill: none; stroke: currentColor; stroke-width: 1.8; }
.thin { stroke-width: 1.2; opacity: 0.55; }
.diagonal { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 2 3; }
.band { stroke: none; fill: currentColor; opacity: 0.15; } .dot { fill: currentColor; }
.bar { fill: currentColor; fill-opacity: 0.5; } .cell { fill: var(--c0); }
.c0 { color: var(--c0); } .c1 { color: var(--c1); } .c2 { color: var(--c2); }
.c3 { color: var(--c3); } .c4 { color: var(--c4); } .c5 { color: var(--c5); }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 12.5px; }
.legend svg { display: inline-block; width: 22px; height: 10px; margin-right: 5px; }
.scroll { overflow: auto; max-height: 560px; margin-top: 8px; }
table { border-collapse: collapse; font-size: 14px; }
th, td { text-align: left; padding: 4px 14px 4px 0; border-bottom: 1px solid var(--grid);
  vertical-align: top; } th { color: var(--soft); font-weight: 500; }
thead th { position: sticky; top: 0; background: var(--back); }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
code, pre { font: 13px/1.5 ui-monospace, monospace; }
pre { background: var(--card); border-radius: 6px; padding: 10px 12px; margin: 4px 0 10px;
  overflow-x: auto; }
.shares { display: flex; height: 26px; border-radius: 5px; overflow: hidden; margin: 8px 0; }
.shares span { background: currentColor; min-width: 1px; }
.note { border-left: 3px solid var(--c1); padding: 2px 10px; margin: 5px 0; }
@media print { body { max-width: none; } .scroll { max-height: none; } }
"""


def document(title: str, body: Iterable[str]) -> str:
    """Returns a whole page that loads nothing."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def section(title: str, *parts: str, level: int = 2) -> str:
    """Returns a heading with what stands below it, "" if that is nothing."""
    inside = [part for part in parts if part]
    if not inside:
        return ""
    return f"<section>\n<h{level}>{escape(title)}</h{level}>\n" + "\n".join(inside) + "\n</section>"


def tiles(values: Mapping[str, str]) -> str:
    """Returns the most important numbers, large."""
    inside = "".join(
        f'<div class="tile"><b>{escape(value)}</b><small>{escape(name)}</small></div>'
        for name, value in values.items()
    )
    return f'<div class="tiles">{inside}</div>'


def figures(charts: Iterable[Chart | None]) -> str:
    """Returns charts side by side."""
    inside = "\n".join(_figure(chart) for chart in charts if chart is not None)
    return f'<div class="charts">\n{inside}\n</div>' if inside else ""


def _figure(chart: Chart) -> str:
    note = f"<figcaption>{escape(chart.note)}</figcaption>" if chart.note else ""
    legend = "".join(_key(*entry) for entry in chart.legend)
    return (
        f"<figure><b>{escape(chart.title)}</b>"
        f'<div class="legend">{legend}</div>\n{chart.svg}\n{note}</figure>'
    )


def _key(name: str, colour: int, style: str) -> str:
    if style == "bar":
        shape = f'<rect class="bar c{colour % 6}" width="22" height="10"/>'
    else:
        shape = f'<path class="{style} c{colour % 6}" d="M0 5H22"/>'
    picture = f'<svg viewBox="0 0 22 10" aria-hidden="true">{shape}</svg>'
    return f"<span>{picture}{escape(name)}</span>"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int) -> str:
    """Returns a table, "" without rows.

    Args:
        heads: names of the columns, () = none.
        rows: cells.
        numbers: so many columns at the end hold numbers.
    """
    if not rows:
        return ""
    first = len(rows[0]) - numbers

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = [' class="number"' if index >= first else "" for index in range(len(cells))]
        return "".join(
            f"<{tag}{kind}>{escape(cell)}</{tag}>" for cell, kind in zip(cells, kinds, strict=True)
        )

    head = f"<thead><tr>{line(heads, 'th')}</tr></thead>" if heads else ""
    body = "\n".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f'<div class="scroll"><table>{head}<tbody>\n{body}\n</tbody></table></div>'


def shares(values: Mapping[str, float]) -> str:
    """Returns a bar that is cut into parts, with a legend."""
    whole = sum(values.values())
    if whole <= 0:
        return ""
    parts, keys = [], []
    for index, (name, value) in enumerate(values.items()):
        told = f"{name}: {100 * value / whole:.1f}%"
        shade = 1.0 if index < 6 else 0.5
        parts.append(
            f'<span class="c{index % 6}" title="{escape(told)}" '
            f'style="width:{100 * value / whole:.2f}%;opacity:{shade}"></span>'
        )
        keys.append(_key(told, index, "bar"))
    return f'<div class="shares">{"".join(parts)}</div>\n<div class="legend">{"".join(keys)}</div>'


def notes(lines: Iterable[str]) -> str:
    """Returns sentences that should be read."""
    return "\n".join(f'<p class="note">{escape(line)}</p>' for line in lines)


def commands(lines: Mapping[str, str]) -> str:
    """Returns command lines with what each is for."""
    return "\n".join(
        f"<p>{escape(what)}</p><pre>{escape(command)}</pre>" for what, command in lines.items()
    )
