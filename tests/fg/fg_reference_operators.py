"""The reference of feature generation: what each operator makes of one cell."""

import itertools
import math
import re

import numpy as np
from fg_reference_values import (
    GS,
    Map,
    as_number,
    is_missing,
    normalize,
    number,
    pairs,
    text_of,
    tokens,
)

# Each takes an entry and the inputs of a cell, and returns the list of its values.


def op_id(entry, values):
    separator = entry.get("separator", GS)
    if entry.get("weighted"):
        return [(k, number(w)) for k, w in pairs(values[0], separator, ":")]
    return tokens(values[0], separator)


def op_raw(entry, values):
    cell = tokens(values[0], entry.get("separator", GS))
    return [normalize(entry, as_number(value)) for value in cell]


def op_combo(entry, values):
    parts = [tokens(value, entry.get("separator", GS)) for value in values]
    joined = [text_of(value) for value in parts[0]]
    for part in parts[1:]:
        joined = [f"{left}_{text_of(right)}" for left in joined for right in part]
    return joined if all(parts) else []


def op_lookup(entry, values):
    entries = pairs(values[0], GS, ":")
    wanted = [text_of(token) for token in tokens(values[1], entry.get("separator", GS))]
    found = []
    for key in wanted:
        hit = next((v for k, v in entries if k == key), None)
        if hit is not None:
            found.append((key, hit))
    if entry.get("value_type") == "string":
        texts = [(key, text_of(value)) for key, value in found]
        return [f"{k}_{v}" for k, v in texts] if entry.get("needKey") else [v for _, v in texts]
    numbers = [number(value) for _, value in found]
    combiner = (entry.get("combiner", "sum") or "").lower()
    if combiner and not entry.get("needDiscrete"):
        numbers = combine(combiner, numbers)
    return [normalize(entry, np.float64(value)) for value in numbers]


def combine(how, numbers):
    if not numbers:
        return []
    gaps = [abs(b - a) for a, b in itertools.pairwise(numbers)] or [0.0]
    gaps = [np.nan if any(map(math.isnan, gaps)) else gap for gap in gaps]
    if any(map(math.isnan, numbers)) and how != "count":
        return [math.nan]
    of = {
        "sum": lambda: add(numbers),
        "mean": lambda: add(numbers) / len(numbers),
        "avg": lambda: add(numbers) / len(numbers),
        "min": lambda: min(numbers),
        "max": lambda: max(numbers),
        "count": lambda: float(len(numbers)),
        "gap_min": lambda: min(gaps),
        "gap_max": lambda: max(gaps),
    }
    return [of[how]()]


def add(numbers):
    total = numbers[0]
    for value in numbers[1:]:
        total += value
    return total


def op_match(entry, values):
    keys = list(values[1:])
    pkey = "ALL" if entry["category"] == "ALL" else keys.pop(0)
    skey = "ALL" if entry["item"] == "ALL" else keys.pop(0)
    if isinstance(values[0], Map):
        outer = [(text_of(k), v) for k, v in values[0] if v is not None]
    else:
        text = values[0] or ""
        outer = [tuple(e.partition("^")[::2]) for e in re.split(r"\||\x1d", text) if e]
    separator = entry.get("separator", GS)
    if entry["category"] == "ALL":
        chosen = outer
    else:
        wanted = [text_of(token) for token in tokens(pkey, separator)]
        chosen = [first for first in (first_of(outer, key) for key in wanted) if first]
    found = []
    for key, body in chosen:
        inner = [tuple(e.partition(":")[::2]) for e in body.split(",") if e]
        if entry["item"] == "ALL":
            found += [(key, *pair) for pair in inner]
        else:
            for wanted in map(text_of, tokens(skey, separator)):
                hit = first_of(inner, wanted)
                found += [(key, *hit)] if hit else []
    if not entry.get("needDiscrete"):
        return [normalize(entry, np.float64(number(value))) for *_, value in found]
    shown = (entry.get("show_category"), entry.get("show_item"), True)
    return ["_".join(p for p, show in zip(hit, shown, strict=True) if show) for hit in found]


def first_of(entries, key):
    return next((pair for pair in entries if pair[0] == key), None)


def op_bool_mask(entry, values):
    separator = entry.get("separator", GS)
    kept = []
    for value, mask in zip(
        tokens(values[0], separator), tokens(values[1], separator), strict=False
    ):
        if text_of(mask).lower() in ("true", "1"):
            kept.append(value)
    return kept


def op_combine(entry, values):
    cell = tokens(values[0], entry.get("separator", GS))
    if entry.get("value_map"):
        known = {str(k): float(v) for k, v in entry["value_map"].items()}
        numbers = [known[text_of(value)] for value in cell if text_of(value) in known]
    else:
        numbers = [float(as_number(value)) for value in cell]
    combiner = (entry.get("combiner") or "sum").lower()
    return [normalize(entry, np.float64(value)) for value in combine(combiner, numbers)]


def op_kv(entry, values):
    delimiter, separator = entry.get("kv_delimiter", ":"), entry.get("separator", GS)
    sides = [pairs(value, separator, delimiter) for value in values]
    if not all(sides):
        return []
    query, document = [[(k, weight(v)) for k, v in side] for side in sides]
    products = [w * next((v for k, v in document if k == key), 0.0) for key, w in query]
    return [normalize(entry, np.float64(add(products)))]


def weight(value):
    return 1.0 if value == "" else number(value)


def op_overlap(entry, values):
    query, title = ([text_of(t) for t in tokens(v, entry.get("separator", GS))] for v in values)
    if not query or not title:
        return []
    return [normalize(entry, np.float64(overlap(entry["method"], query, title)))]


def overlap(method, query, title):
    places = [i for i in range(len(title)) if title[i : i + len(query)] == query]
    if method == "query_common_ratio":
        return sum(term in title for term in query) / len(query)
    if method == "title_common_ratio":
        return sum(term in query for term in title) / len(title)
    if method == "is_contain":
        return float(bool(places))
    if method == "is_equal":
        return float(query == title)
    if method == "index_of":
        return float(places[0] if places else -1)
    terms = sorted(set(query))
    if method == "proximity_min_cover":
        windows = [
            end - start
            for start in range(len(title))
            for end in range(start + 1, len(title) + 1)
            if set(terms) <= set(title[start:end])
        ]
        return float(min(windows, default=0))
    gaps = []
    for i, first in enumerate(terms):
        for second in terms[i + 1 :]:
            distances = [
                abs(a - b)
                for a in range(len(title))
                for b in range(len(title))
                if title[a] == first and title[b] == second
            ]
            gaps += [min(distances)] if distances else []
    if not gaps:
        return float(len(title) + 1)
    if method == "proximity_avg_dist":
        return sum(gaps) / len(gaps)
    return float(min(gaps) if method == "proximity_min_dist" else max(gaps))


def op_expr(entry, values):
    """Only for expressions that Python reads the same way, over element-wise vectors."""
    names = [expression.partition(":")[2] for expression in entry["variables"]]
    cells = [tokens(value, entry.get("separator", GS)) for value in values]
    if not all(cells):
        return []
    used = [name in re.findall(r"\w+", entry["expression"]) for name in names]
    vectors = [
        [float(as_number(v)) for v in (cell if counts else cell[:1])]
        for cell, counts in zip(cells, used, strict=True)
    ]
    size = max(map(len, vectors))
    fill = entry.get("fill_missing", math.nan)
    vectors = [v * size if len(v) == 1 else v + [fill] * (size - len(v)) for v in vectors]
    with np.errstate(all="ignore"):
        return [
            np.float64(
                eval(entry["expression"], {"__builtins__": {}}, dict(zip(names, at, strict=True)))
            )
            for at in zip(*([np.float64(x) for x in v] for v in vectors), strict=True)
        ]


def op_regex(entry, values):
    found = []
    for value in tokens(values[0], entry.get("separator", GS)):
        text = text_of(value)
        patterns = entry["regex_pattern"]
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            flags = re.I if entry.get("icase") else 0
            count = 0 if entry.get("replace_all", True) else 1
            text = re.sub(pattern, entry.get("replacement", ""), text, count=count, flags=flags)
        found.append(text)
    return found


def op_edit_distance(entry, values):
    a, b = values
    if is_missing(a) or is_missing(b):
        return []
    if str(entry.get("encoding", "utf-8")) == "latin":
        a, b = a.encode(), b.encode()
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        above, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (left != right))
    return [np.float64(row[-1])]


OPERATORS = {
    "id_feature": op_id,
    "raw_feature": op_raw,
    "combo_feature": op_combo,
    "lookup_feature": op_lookup,
    "match_feature": op_match,
    "bool_mask_feature": op_bool_mask,
    "combine_feature": op_combine,
    "kv_dot_product": op_kv,
    "overlap_feature": op_overlap,
    "expr_feature": op_expr,
    "regex_replace_feature": op_regex,
    "custom_feature": op_edit_distance,
}
