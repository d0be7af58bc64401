"""What each ranking model asks of its groups and layers, said before anything is built."""

from __future__ import annotations

import pytest
from config_samples import DEEPFM, DIN, write

from tzrec.config import prepare
from tzrec.errors import ConfigError

HEAD = DEEPFM[: DEEPFM.index("model_config {")]
SEQUENCES = DIN[: DIN.index("model_config {")]
END = "metrics { auc {} } losses { binary_cross_entropy {} } }"
FINAL = "final { hidden_units: 8 }"


def group(name, *features, kind="DEEP", more=""):
    names = ", ".join(f'"{feature}"' for feature in features)
    return (
        f'feature_groups {{ group_name: "{name}" feature_names: [{names}] '
        f"group_type: {kind} {more} }} "
    )


SPARSE = group("sparse", "user_id", "item_id", "price")
DENSE = group("dense", "age")
MIXED = group("sparse", "user_id", "item_id", "age")
ALL = group("all", "user_id", "item_id", "price", "age")
WIDE = group("wide", "user_id", "item_id", "price", kind="WIDE")
DEEP = group("deep", "user_id", "item_id", "price", "age")
DENSE_MLP = "dense_mlp { hidden_units: [8, 16] }"
WUKONG_LAYER = (
    "wukong_layers { lcb_feature_num: 2 fmb_feature_num: 2 feature_num_mlp { hidden_units: 8 } }"
)
TOWER = 'towers { input: "all" }'
FIRST = "model_config.feature_groups[0]"


def dlrm(more=""):
    return f"dlrm {{ {FINAL} {more} }}"


def wukong(more=WUKONG_LAYER):
    return f"wukong {{ {FINAL} {more} }}"


def xdeepfm(sizes):
    return f"xdeepfm {{ cin {{ {sizes} }} deep {{ hidden_units: 8 }} {FINAL} }}"


def dcn_v1(cross=""):
    return f"dcn_v1 {{ cross {{ {cross} }} deep {{ hidden_units: 8 }} {FINAL} }}"


def dcn_v2(cross="", more=""):
    return f"dcn_v2 {{ cross {{ {cross} }} {FINAL} {more} }}"


RIGHT = {
    "dlrm": SPARSE + DENSE + dlrm(DENSE_MLP),
    "dlrm, lone group": group("anything", "user_id", "item_id", "price") + dlrm(),
    "wukong": SPARSE + DENSE + wukong(DENSE_MLP + WUKONG_LAYER),
    "wukong, lone group": group("anything", "user_id", "item_id", "price") + wukong(),
    "xdeepfm": WIDE + DEEP + xdeepfm("cin_layer_size: [4, 4]"),
    "dcn_v1": ALL + dcn_v1(),
    "dcn_v2": ALL + dcn_v2("low_rank: 0", "backbone { hidden_units: 8 } deep { hidden_units: 8 }"),
}
# Without features that the model does not read, to see its own warnings only.
_UNREAD = "in no feature group"

WRONG = {
    "dlrm: several widths": (
        MIXED + dlrm(),
        f"{FIRST}.feature_names: DLRM multiplies the features of group 'sparse', so they need one "
        "width, not 16 (user_id, item_id) and 1 (age)",
    ),
    "dlrm: several widths in a lone group": (
        ALL + dlrm(),
        f"{FIRST}.feature_names: DLRM multiplies the features of group 'all', so they need one "
        "width, not 16 (user_id, item_id, price) and 1 (age)",
    ),
    "dlrm: no sparse group": (
        group("sparce", "user_id", "item_id", "price") + DENSE + dlrm(DENSE_MLP),
        "model_config.dlrm: the model needs a feature group named 'sparse'; "
        "did you mean 'sparce'?",
    ),
    "dlrm: wide group": (
        group("sparse", "user_id", "item_id", "price", kind="WIDE") + DENSE + dlrm(DENSE_MLP),
        f"{FIRST}: group 'sparse' is WIDE, but DLRM needs it to be DEEP here",
    ),
    "dlrm: lone wide group": (
        group("all", "user_id", "item_id", kind="WIDE") + dlrm(),
        f"{FIRST}: group 'all' is WIDE, but DLRM needs it to be DEEP here",
    ),
    "dlrm: no dense_mlp": (
        SPARSE + DENSE + dlrm(),
        "model_config.dlrm.dense_mlp: is missing: it makes a vector of the group 'dense'",
    ),
    "dlrm: dense_mlp ends with another width": (
        SPARSE + DENSE + dlrm("dense_mlp { hidden_units: [8, 8] }"),
        "model_config.dlrm.dense_mlp.hidden_units[1]: is 8, but the features of group 'sparse' "
        "are 16 wide, and DLRM multiplies them",
    ),
    "dlrm: one feature": (
        group("sparse", "user_id") + dlrm(),
        f"{FIRST}.feature_names: DLRM multiplies pairs of features, but group 'sparse' has only "
        "one",
    ),
    "wukong: several widths": (
        MIXED + wukong(),
        f"{FIRST}.feature_names: WuKong multiplies the features of group 'sparse', so they need "
        "one width, not 16 (user_id, item_id) and 1 (age)",
    ),
    "wukong: dense_mlp ends with another width": (
        SPARSE + DENSE + wukong("dense_mlp { hidden_units: 8 }" + WUKONG_LAYER),
        "model_config.wukong.dense_mlp.hidden_units[0]: is 8, but the features of group 'sparse' "
        "are 16 wide, and WuKong multiplies them",
    ),
    "wukong: no layer": (
        SPARSE + wukong(""),
        "model_config.wukong.wukong_layers: is missing: the model has no layer",
    ),
    "wukong: no factorization machine": (
        SPARSE + wukong(WUKONG_LAYER.replace("fmb_feature_num: 2", "fmb_feature_num: 0")),
        "model_config.wukong.wukong_layers[0].fmb_feature_num: is 0, must be at least 1",
    ),
    "wukong: no linear compression": (
        SPARSE + wukong(WUKONG_LAYER.replace("lcb_feature_num: 2", "lcb_feature_num: 0")),
        "model_config.wukong.wukong_layers[0].lcb_feature_num: is 0, must be at least 1",
    ),
    "wukong: compressed to nothing": (
        SPARSE + wukong(WUKONG_LAYER.replace("layers {", "layers { compressed_feature_num: 0")),
        "model_config.wukong.wukong_layers[0].compressed_feature_num: is 0, must be at least 1",
    ),
    "xdeepfm: no layers": (
        WIDE + DEEP + xdeepfm(""),
        "model_config.xdeepfm.cin.cin_layer_size: is missing: the CIN has no layers",
    ),
    "xdeepfm: empty layer": (
        WIDE + DEEP + xdeepfm("cin_layer_size: [4, 0]"),
        "model_config.xdeepfm.cin.cin_layer_size[1]: is 0, must be at least 1",
    ),
    "xdeepfm: no wide group": (
        DEEP + xdeepfm("cin_layer_size: 4"),
        "model_config.xdeepfm: the model needs a feature group named 'wide'",
    ),
    "xdeepfm: no wide_embedding_dim": (
        WIDE + DEEP + xdeepfm("cin_layer_size: 4").replace("cin {", "wide_embedding_dim: 0 cin {"),
        "model_config.xdeepfm.wide_embedding_dim: is 0, must be at least 1",
    ),
    "dcn_v1: no layer": (
        ALL + dcn_v1("cross_num: 0"),
        "model_config.dcn_v1.cross.cross_num: is 0, must be at least 1",
    ),
    "dcn_v1: first group is wide": (
        WIDE + DEEP + dcn_v1(),
        f"{FIRST}: group 'wide' is WIDE, but DCNV1 needs it to be DEEP here",
    ),
    "dcn_v2: no layer": (
        ALL + dcn_v2("cross_num: 0"),
        "model_config.dcn_v2.cross.cross_num: is 0, must be at least 1",
    ),
    "multi_tower: two towers of one group": (
        ALL + f"multi_tower {{ {TOWER} {TOWER} {FINAL} }}",
        "model_config.multi_tower.towers[1].input: two towers read the feature group 'all'",
    ),
    "multi_tower_din: two towers of one group": (
        ALL + f"multi_tower_din {{ {TOWER} {TOWER} {FINAL} }}",
        "model_config.multi_tower_din.towers[1].input: two towers read the feature group 'all'",
    ),
}  # fmt: skip

WARNED = {
    "dlrm: dense_mlp without dense": (
        SPARSE + dlrm(DENSE_MLP),
        "model_config.dlrm.dense_mlp: has no effect: there is no group 'dense'",
    ),
    "wukong: a group too many": (
        SPARSE + group("other", "age") + wukong(),
        "WuKong does not read group 'other'",
    ),
    "dcn_v2: only the first group is read": (
        ALL + group("other", "age") + dcn_v2(),
        "DCNV2 does not read group 'other'",
    ),
}


def _write(tmp_path, model, head=HEAD):
    return write(tmp_path / "c.config", f"{head}model_config {{ {model} {END}")


def _first_line(tmp_path, model, head=HEAD):
    with pytest.raises(ConfigError) as caught:
        prepare(_write(tmp_path, model, head))
    return str(caught.value).splitlines()[0].split(".config:", 1)[1].split(": ", 1)[1]


@pytest.mark.parametrize("name", RIGHT)
def test_right_configs_have_no_problem_and_no_warning(tmp_path, name):
    pipeline = prepare(_write(tmp_path, RIGHT[name]), log_warnings=False)
    assert [line for line in pipeline.warning_lines() if _UNREAD not in line] == []


@pytest.mark.parametrize("name", WRONG)
def test_wrong_config(tmp_path, name):
    model, expected = WRONG[name]
    assert _first_line(tmp_path, model) == expected


@pytest.mark.parametrize("name", WARNED)
def test_odd_config_warns(tmp_path, name):
    model, words = WARNED[name]
    pipeline = prepare(_write(tmp_path, model), log_warnings=False)
    assert any(words in line for line in pipeline.warning_lines()), pipeline.warning_lines()


ENCODED = """sequence_groups { feature_names: ["item", "click__item"] }
sequence_encoders { simple_attention {} }"""


@pytest.mark.parametrize(("name", "model"), [("dlrm", "DLRM"), ("wukong", "WuKong")])
@pytest.mark.parametrize(("place", "path"), [("sparse", 0), ("dense", 1)])
def test_vectors_take_no_encoders(tmp_path, name, model, place, path):
    groups = [group("sparse", "user", "item"), group("dense", "user")]
    groups[path] = groups[path].replace("group_type: DEEP", f"group_type: DEEP {ENCODED}")
    layer = WUKONG_LAYER if name == "wukong" else ""
    text = "".join(groups) + f"{name} {{ dense_mlp {{ hidden_units: 8 }} {layer} {FINAL} }}"
    assert _first_line(tmp_path, text, SEQUENCES) == (
        f"model_config.feature_groups[{path}].sequence_encoders: {model} takes no "
        f"sequence_encoders, group {place!r} has some"
    )


def test_two_din_towers_of_one_group(tmp_path):
    steps = group("seq", "item", "click__item", "click__price", kind="SEQUENCE")
    tower = 'din_towers { input: "seq" attn_mlp { hidden_units: 4 } }'
    text = steps + f"multi_tower_din {{ {tower} {tower} {FINAL} }}"
    assert _first_line(tmp_path, text, SEQUENCES) == (
        "model_config.multi_tower_din.din_towers[1].input: two din_towers read the feature group "
        "'seq'"
    )
