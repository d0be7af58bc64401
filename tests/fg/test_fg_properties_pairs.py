"""`FgHandler` against the reference on random columns: features of several columns."""

from fg_property import (
    BUCKETIZERS,
    DEFAULTS,
    NUMBER,
    SEEDS,
    SEPARATORS,
    SIZES,
    backends,
    check,
    column,
    columns_of,
    maps,
    nested_lists,
    number_lists,
    numbers,
    quick,
    shaped,
    single_texts,
    text_lists,
    texts,
)
from fg_reference import is_sequence
from hypothesis import given
from hypothesis import strategies as st


@backends
@quick
@given(st.data())
def test_combo(backend, data):
    draw, size = data.draw, data.draw(SIZES)
    count = draw(st.integers(2, 3))
    names = [f"c{i}" for i in range(count)]
    sides = [draw(st.sampled_from(["user", "item"])) for _ in names]
    entry = {
        "feature_type": "combo_feature",
        "feature_name": "f",
        "expression": [f"{side}:{name}" for side, name in zip(sides, names, strict=True)],
        "default_value": draw(DEFAULTS),
        "separator": draw(SEPARATORS),
        **draw(BUCKETIZERS),
    }
    entry, group = shaped(draw, entry)
    if group or is_sequence(entry):
        entry["value_dim"] = draw(st.integers(0, 2))
        sides[0] = "item"  # some input is a sequence
        entry["expression"][0] = "item:c0"
    columns = {}
    for name, side in zip(names, sides, strict=True):
        own = 1 if draw(st.integers(0, 5)) == 0 and name != "c0" else size
        sequence = is_sequence(entry) and side == "item"
        columns[name] = draw(columns_of(own, sequence=sequence))
    farm = draw(st.booleans())
    check(entry, columns, backend, draw(SEEDS), farm=farm, group=group)


@backends
@quick
@given(st.data())
def test_lookup(backend, data):
    draw, size = data.draw, data.draw(SIZES)
    entry = {
        "feature_type": "lookup_feature",
        "feature_name": "f",
        "map": "user:m",
        "key": "item:k",
        "default_value": draw(st.sampled_from(["", "0", "2"])),
    }
    if draw(st.booleans()):
        entry |= {"value_type": "string", "needDiscrete": True, "combiner": ""}
        entry |= {"needKey": draw(st.booleans()), **draw(BUCKETIZERS)}
    else:
        combiners = ["sum", "mean", "avg", "min", "max", "count", "gap_min", "gap_max"]
        entry |= {"value_type": "float", "combiner": draw(st.sampled_from(combiners))}
        if draw(st.booleans()):
            entry["boundaries"] = [0.0, 1.5]
    entry, group = shaped(draw, entry)
    key = st.sampled_from(["a", "b", "1", "é", "k" * 9, "k" * 8 + "x"])
    pair = st.tuples(key, NUMBER).map(":".join)
    table = draw(
        st.one_of(
            texts(size, pair, ("\x1d",)),
            maps(size, key, st.floats(-9, 9), ("text", "double")),
            maps(size, st.integers(0, 3), NUMBER, ("int", "text")),
        )
    )
    sequence = is_sequence(entry)
    wanted = draw(columns_of(size, sequence=sequence, words=key))
    check(entry, {"m": table, "k": wanted}, backend, draw(SEEDS), group=group)


@backends
@quick
@given(st.data())
def test_match(backend, data):
    draw, size = data.draw, data.draw(SIZES)
    pkey, skey = (draw(st.sampled_from([f"item:{name}", "ALL"])) for name in "ps")
    discrete = draw(st.booleans()) or "ALL" in (pkey, skey)
    entry = {
        "feature_type": "match_feature",
        "feature_name": "f",
        "user": "user:m",
        "category": pkey,
        "item": skey,
        "matchType": "multihit" if "ALL" in (pkey, skey) else "hit",
        "default_value": draw(st.sampled_from(["", "0", "2"])),
        "needDiscrete": discrete,
    }
    if discrete:
        entry |= {"value_type": "string", "show_category": draw(st.booleans())}
        entry |= {"show_item": draw(st.booleans()), "value_dim": draw(st.integers(0, 2))}
        entry |= draw(BUCKETIZERS)
    elif draw(st.booleans()):
        entry["boundaries"] = [0.0, 1.5]
    entry, group = shaped(draw, entry)
    key = st.sampled_from(["a", "b", "1", "ALL"])
    value = st.sampled_from(["1", "2.5", "0", "-1"])
    inner = st.lists(st.tuples(key, value).map(":".join), max_size=3).map(",".join)
    outer = st.lists(st.tuples(key, inner).map("^".join), max_size=3).map("|".join)
    table = draw(st.one_of(single_texts(size, outer), maps(size, key, inner, ("text", "text"))))
    columns = {"m": table}
    for name, wanted in (("p", pkey), ("s", skey)):
        if wanted != "ALL":
            steps = texts(size, key, (";",))
            columns[name] = draw(steps if is_sequence(entry) else single_texts(size, key))
    check(entry, columns, backend, draw(SEEDS), group=group)


@backends
@quick
@given(st.data())
def test_bool_mask(backend, data):
    draw, size = data.draw, data.draw(SIZES)
    entry = {
        "feature_type": "bool_mask_feature",
        "feature_name": "f",
        "expression": ["item:v", "item:m"],
        "default_value": draw(DEFAULTS),
        "value_dim": draw(st.integers(0, 2)),
        **draw(BUCKETIZERS),
    }
    entry, group = shaped(draw, entry)
    flag = st.sampled_from(["true", "1", "TRUE", "tRue", "false", "0", "x", "11"])
    separators = ("\x1d", ";") if is_sequence(entry) else ("\x1d",)
    of_values = [texts(size, separators=separators), text_lists(size), number_lists(size, "int")]
    of_mask = [texts(size, flag, separators), text_lists(size, flag)]
    of_mask += [number_lists(size, family) for family in ("bool", "int")]
    if is_sequence(entry):
        of_values.append(nested_lists(size))
        of_mask.append(nested_lists(size, flag))
    columns = {"v": draw(st.one_of(of_values)), "m": draw(st.one_of(of_mask))}
    check(entry, columns, backend, draw(SEEDS), group=group)


@backends
@quick
@given(st.data())
def test_kv_dot_product(backend, data):
    draw, size = data.draw, data.draw(SIZES)
    entry = {
        "feature_type": "kv_dot_product",
        "feature_name": "f",
        "query": "user:q",
        "document": "item:d",
        "default_value": draw(st.sampled_from(["", "0", "2"])),
        "separator": draw(SEPARATORS),
        **draw(st.sampled_from([{}, {"boundaries": [0.5, 2.0]}])),
    }
    entry, group = shaped(draw, entry)
    key = st.sampled_from(["a", "b", "1"])
    token = st.one_of(key, st.tuples(key, st.sampled_from(["1", "0.5", "-2"])).map(":".join))
    side = st.one_of(
        texts(size, token, (entry["separator"],)),
        text_lists(size, token),
        maps(size, key, st.integers(-3, 3), ("text", "int")),
    )
    steps = st.one_of(texts(size, token, (";", entry["separator"])), text_lists(size, token))
    document = draw(steps if is_sequence(entry) else side)
    check(entry, {"q": draw(side), "d": document}, backend, draw(SEEDS), group=group)


@backends
@quick
@given(st.data())
def test_overlap(backend, data):
    draw, size = data.draw, data.draw(SIZES)
    methods = ["query_common_ratio", "title_common_ratio", "is_contain", "is_equal", "index_of"]
    methods += ["proximity_min_cover"]
    methods += [f"proximity_{of}_dist" for of in ("min", "max", "avg")]
    entry = {
        "feature_type": "overlap_feature",
        "feature_name": "f",
        "query": "user:q",
        "title": "item:t",
        "method": draw(st.sampled_from(methods)),
        "separator": "|",
        **draw(st.sampled_from([{}, {"boundaries": [0.5, 2.0]}])),
    }
    entry, group = shaped(draw, entry)
    term = st.sampled_from(["a", "b", "c", "é"])
    query = texts(size, term, ("|",))
    title = column(st.lists(term, max_size=8), ("list", "text"), size)
    if is_sequence(entry):
        title = st.one_of(texts(size, term, ("|", ";")), nested_lists(size, term))
    columns = {"q": draw(query), "t": draw(title)}
    check(entry, columns, backend, draw(SEEDS), group=group)


@backends
@quick
@given(st.data())
def test_expr(backend, data):
    draw, size = data.draw, data.draw(SIZES)
    entry = {
        "feature_type": "expr_feature",
        "feature_name": "f",
        "expression": draw(
            st.sampled_from(["a + b", "a * 2 - b", "-a", "(a < b) * 3 + b / (a * a + 1)", "a == b"])
        ),
        "variables": ["user:a", "item:b"],
        "default_value": draw(st.sampled_from(["0", "2"])),
        "separator": "|",
        **draw(st.sampled_from([{}, {"boundaries": [-1.0, 0.5, 2.0]}])),
    }
    entry, group = shaped(draw, entry)
    sequence = is_sequence(entry)
    small = st.sampled_from(["0", "1", "2.5", "-3", "1e2"])
    separators = (";",) if sequence else ("|",)
    one = st.one_of(numbers(size, "int"), numbers(size, "double"), single_texts(size, small))
    several = st.one_of(texts(size, small, separators), number_lists(size, "int"))
    columns = {"a": draw(one), "b": draw(st.one_of(one, several))}
    check(entry, columns, backend, draw(SEEDS), group=group)


@backends
@quick
@given(st.data())
def test_edit_distance(backend, data):
    draw, size = data.draw, data.draw(SIZES)
    entry = {
        "feature_type": "custom_feature",
        "feature_name": "f",
        "operator_name": "EditDistance",
        "expression": ["user:a", "item:b"],
        "encoding": draw(st.sampled_from(["utf-8", "latin"])),
        "value_type": "float",
        "value_dim": 1,
        "default_value": draw(st.sampled_from(["0", "9"])),
        **draw(st.sampled_from([{}, {"boundaries": [0.5, 2.0]}])),
    }
    words = st.text(alphabet="abé😀\x1d|", max_size=6)
    column = single_texts(size, words)
    check(entry, {"a": draw(column), "b": draw(column)}, backend, draw(SEEDS))
