"""What MaskNet, RocketLaunching, FinalMLP, AutoInt, GDCN and TransAct ask of a config."""

from __future__ import annotations

import pytest
from config_samples import write
from test_config_rank_models import ALL, END, FINAL, FIRST, HEAD, SEQUENCES, group

from tzrec.config import prepare
from tzrec.errors import ConfigError

VECTORS = group("vectors", "user_id", "item_id", "price")
DEEP = group("deep", "user_id", "age")
FS1, FS2 = group("fs1", "user_id"), group("fs2", "item_id", "age")
OTHER = group("other", "user_id")
HISTORY = group("seq", "item", "click__item", kind="SEQUENCE")
USER = group("u", "user")
BLOCK = "mask_block { hidden_dim: 8 }"
MLP = "{ hidden_units: [8, 4] }"
GATES = "feature_selection { hidden_units: 8 }"


def mask_net(block=BLOCK, more="n_mask_blocks: 2"):
    return f"mask_net {{ mask_net_module {{ {block} {more} }} }}"


def rocket(more="", light="8, 4"):
    nets = f"booster_mlp {{ hidden_units: [16, 4] }} light_mlp {{ hidden_units: [{light}] }}"
    return f"rocket_launching {{ {nets} {more} }}"


def final_mlp(more=""):
    return f"final_mlp {{ mlp1 {MLP} mlp2 {{ hidden_units: [8, 6] }} {more} }}"


def transact(tower="", more=""):
    return f'transact {{ transact_towers {{ input: "seq" {tower} }} {more} {FINAL} }}'


MODULE = "model_config.mask_net.mask_net_module"
TOWER = "model_config.transact.transact_towers[0]"
RIGHT = {
    "mask_net": ALL + mask_net(),
    "mask_net, serial": ALL + mask_net(more=f"n_mask_blocks: 1 use_parallel: false top_mlp {MLP}"),
    "mask_net, aggregation": ALL
    + mask_net("mask_block { hidden_dim: 8 reduction_ratio: 0 aggregation_dim: 4 }"),
    "rocket_launching": ALL + rocket(),
    "rocket_launching, distilled": ALL
    + rocket("feature_based_distillation: true feature_distillation_function: EUCLID"),
    "final_mlp": ALL + final_mlp("num_heads: 2"),
    "final_mlp, constants": ALL + final_mlp(GATES),
    "final_mlp, groups": ALL + FS1 + FS2
    + final_mlp("feature_selection { hidden_units: 8 use_bn: true }"),
    "autoint": VECTORS + "autoint { }",
    "autoint, deep": VECTORS + DEEP + f"autoint {{ deep {MLP} }}",
    "autoint, lone deep": group("deep", "user_id", "price") + f"autoint {{ deep {MLP} }}",
    "gdcn": ALL + "gdcn { cross { } }",
    "gdcn, stacked": ALL + f"gdcn {{ cross {{ cross_num: 2 }} deep {MLP} stacked: true {FINAL} }}",
}  # fmt: skip
RIGHT_HISTORIES = {
    "transact": USER + HISTORY + transact("", "cross { }"),
    "transact, history only": HISTORY + transact("max_seq_length: 10"),
}
WRONG = {
    "mask_net: wide": (
        VECTORS.replace("DEEP", "WIDE") + mask_net(),
        f"{FIRST}: group 'vectors' is WIDE, but MaskNet needs it to be DEEP here",
    ),
    "mask_net: no blocks": (
        ALL + mask_net(more="n_mask_blocks: 0"), f"{MODULE}.n_mask_blocks: is 0, must be at least 1"
    ),
    "mask_net: no units": (
        ALL + mask_net("mask_block { hidden_dim: 0 }"),
        f"{MODULE}.mask_block.hidden_dim: is 0, must be at least 1",
    ),
    "mask_net: no width of the mask": (
        ALL + mask_net("mask_block { hidden_dim: 8 reduction_ratio: 0 }"),
        f"{MODULE}.mask_block.aggregation_dim: is missing: reduction_ratio is 0, so it says how "
        "many hidden units the mask has",
    ),
    "mask_net: negative ratio": (
        ALL + mask_net("mask_block { hidden_dim: 8 reduction_ratio: -1 }"),
        f"{MODULE}.mask_block.reduction_ratio: is -1, must be at least 0",
    ),
    "final_mlp: heads": (
        ALL + final_mlp("num_heads: 4"),
        "model_config.final_mlp.num_heads: is 4, which does not divide the 6 units of the last "
        "layer of mlp2",
    ),
    "final_mlp: no head": (
        ALL + final_mlp("num_heads: 0"),
        "model_config.final_mlp.num_heads: is 0, must be at least 1",
    ),
    "final_mlp: context first": (
        FS1 + ALL + final_mlp(GATES),
        f"{FIRST}: the first group holds the features, but 'fs1' is the context of a gate",
    ),
    "final_mlp: batch norm of a constant": (
        ALL + FS1 + final_mlp("feature_selection { hidden_units: 8 use_bn: true }"),
        "model_config.final_mlp.feature_selection.use_bn: normalises over the batch, but a gate "
        "without a group of its own has the same context in all rows",
    ),
    "final_mlp: Dice of a constant": (
        ALL + final_mlp('feature_selection { hidden_units: 8 activation: "Dice" }'),
        "model_config.final_mlp.feature_selection.activation: normalises over the batch, but a "
        "gate without a group of its own has the same context in all rows",
    ),
    "autoint: widths": (
        ALL + "autoint { }",
        f"{FIRST}.feature_names: AutoInt compares the features of group 'all', so they need one "
        "width, not 16 (user_id, item_id, price) and 1 (age)",
    ),
    "autoint: no layer": (
        VECTORS + "autoint { num_layers: 0 }",
        "model_config.autoint.num_layers: is 0, must be at least 1",
    ),
    "gdcn: stacked on nothing": (
        ALL + "gdcn { cross { } stacked: true }",
        "model_config.gdcn.stacked: puts the MLP deep on the cross layers, but there is no deep",
    ),
    "gdcn: no layer": (
        ALL + "gdcn { cross { cross_num: 0 } }",
        "model_config.gdcn.cross.cross_num: is 0, must be at least 1",
    ),
}  # fmt: skip
WRONG_HISTORIES = {
    "no tower": (
        USER + f"transact {{ {FINAL} }}",
        "model_config.transact.transact_towers: is missing: the model reads no history",
    ),
    "no such group": (
        USER + transact(),
        f"{TOWER}.input: there is no feature group 'seq'",
    ),
    "no history": (
        group("seq", "user") + transact(),
        f"{TOWER}.input: group 'seq' is DEEP, but TransAct needs it to be SEQUENCE here",
    ),
    "no query": (
        group("seq", "click__item", kind="SEQUENCE") + transact(),
        f"{TOWER}.input: transact compares the sequence with a query, and the group has none",
    ),
    "heads": (
        HISTORY + transact("num_heads: 3"),
        f"{TOWER}.num_heads: is 3, which does not divide the width of query and sequence together, "
        "8 + 8 = 16",
    ),
    "more outputs than steps": (
        HISTORY + transact("max_seq_length: 5"),
        f"{TOWER}.num_latest: is 10, but max_seq_length keeps 5 steps",
    ),
    "dropout": (
        HISTORY + transact("dropout_ratio: 1"),
        f"{TOWER}.dropout_ratio: is 1, must be at least 0 and below 1",
    ),
    "twice": (
        HISTORY + transact("", 'transact_towers { input: "seq" }'),
        "model_config.transact.transact_towers[1].input: two transact_towers read the feature "
        "group 'seq'",
    ),
}  # fmt: skip
WARNED = {
    "mask_net: the ratio wins": (
        ALL + mask_net("mask_block { hidden_dim: 8 aggregation_dim: 4 }"),
        f"{MODULE}.mask_block.aggregation_dim: has no effect: reduction_ratio 1 (the default) says",
    ),
    "mask_net: a group too many": (ALL + OTHER + mask_net(), "MaskNet does not read group 'other'"),
    "rocket_launching: no pair": (
        ALL + rocket("feature_based_distillation: true", light="8, 2"),
        "feature_based_distillation: has no effect: no layer of light_mlp [8, 2] is as wide as one "
        "of booster_mlp [16, 4]",
    ),
    "rocket_launching: no distillation": (
        ALL + rocket("feature_distillation_function: EUCLID"),
        "feature_distillation_function: has no effect without feature_based_distillation: true",
    ),
    "rocket_launching: inner product": (
        ALL
        + rocket("feature_based_distillation: true feature_distillation_function: INNER_PRODUCT"),
        "feature_distillation_function: INNER_PRODUCT is computed as EUCLID",
    ),
    "final_mlp: no gates": (
        ALL + FS2 + final_mlp(), "FinalMLP does not read group 'fs2' without feature_selection"
    ),
    "autoint: no MLP": (
        VECTORS + DEEP + "autoint { }", "AutoInt does not read group 'deep' without the MLP deep"
    ),
    "gdcn: a group too many": (
        ALL + OTHER + "gdcn { cross { } }", "GDCN does not read group 'other'"
    ),
}  # fmt: skip
# Features that no group reads.
_UNREAD = "in no feature group"


def _write(tmp_path, model, head):
    return write(tmp_path / "c.config", f"{head}model_config {{ {model} {END}")


def _warnings(tmp_path, model, head=HEAD):
    lines = prepare(_write(tmp_path, model, head), log_warnings=False).warning_lines()
    return [line for line in lines if _UNREAD not in line]


def _first_line(tmp_path, model, head=HEAD):
    with pytest.raises(ConfigError) as caught:
        prepare(_write(tmp_path, model, head))
    return str(caught.value).splitlines()[0].split(".config:", 1)[1].split(": ", 1)[1]


@pytest.mark.parametrize("name", RIGHT)
def test_right_configs_have_no_problem_and_no_warning(tmp_path, name):
    assert _warnings(tmp_path, RIGHT[name]) == []


@pytest.mark.parametrize("name", RIGHT_HISTORIES)
def test_right_histories(tmp_path, name):
    assert _warnings(tmp_path, RIGHT_HISTORIES[name], SEQUENCES) == []


@pytest.mark.parametrize("name", WRONG)
def test_wrong_config(tmp_path, name):
    model, expected = WRONG[name]
    assert _first_line(tmp_path, model).startswith(expected)


@pytest.mark.parametrize("name", WRONG_HISTORIES)
def test_wrong_history(tmp_path, name):
    model, expected = WRONG_HISTORIES[name]
    assert _first_line(tmp_path, model, SEQUENCES).startswith(expected)


@pytest.mark.parametrize("name", WARNED)
def test_odd_config_warns(tmp_path, name):
    model, words = WARNED[name]
    lines = _warnings(tmp_path, model)
    assert len(lines) == 1
    assert words in lines[0]


def test_transact_names_the_groups_that_it_leaves_out(tmp_path):
    wide = group("w", "user", kind="WIDE")
    (line,) = _warnings(tmp_path, wide + HISTORY + transact(), SEQUENCES)
    assert "TransAct does not read group 'w'" in line


@pytest.mark.parametrize("metric", ["auc_light", "auc_booster", "binary_cross_entropy_light"])
def test_metrics_of_rocket_launching_have_a_suffix(tmp_path, metric):
    text = ALL + rocket()
    stop = f'num_epochs: 1 early_stop {{ metric: "{metric}" }}'
    assert _warnings(tmp_path, text, HEAD.replace("num_epochs: 1", stop)) == []


def test_a_metric_without_suffix_is_unknown(tmp_path):
    head = HEAD.replace("num_epochs: 1", 'num_epochs: 1 early_stop { metric: "auc" }')
    found = _first_line(tmp_path, ALL + rocket(), head)
    assert found.startswith("train_config.early_stop.metric: there is no metric 'auc'")
