# ruff: noqa: E501
"""What each two-tower model asks of its groups, negatives and objectives."""

from __future__ import annotations

import re

import pytest
from config_samples import DEEPFM, DIN, write

from tzrec.config import prepare
from tzrec.errors import ConfigError

HEAD = DEEPFM[: DEEPFM.index("model_config {")]
SEQUENCES = DIN[: DIN.index("model_config {")]
for _old, _new in (('"user"', '"user_id"'), ('"item"', '"item_id"'), ('"click"', '"click_seq"')):
    SEQUENCES = SEQUENCES.replace(_old, _new)
SEQUENCES = re.sub(r"features \{\s*raw_feature[^}]*\}\s*\}", "", SEQUENCES)
END = "metrics { recall_at_k {} } losses { softmax_cross_entropy {} } }"
MLP = "mlp { hidden_units: [16, 8] }"
SAMPLER = (
    'data_config {\n  negative_sampler { input_path: "items.txt" num_sample: 8 '
    'item_id_field: "item_id" attr_fields: ["item_id", "price"] }'
)


def group(name, *features, kind="DEEP", more=""):
    names = ", ".join(f'"{feature}"' for feature in features)
    return (
        f'feature_groups {{ group_name: "{name}" feature_names: [{names}] '
        f"group_type: {kind} {more} }} "
    )


USER, ITEM = group("user", "user_id", "age"), group("item", "item_id", "price")
TOWERS = f'user_tower {{ input: "user" {MLP} }} item_tower {{ input: "item" {MLP} }}'


def dssm(more="in_batch_negative: true", towers=TOWERS, output_dim=4, model="dssm"):
    return f"{model} {{ {towers} output_dim: {output_dim} {more} }} "


def dat(dim=16, user=MLP, output_dim=16):
    return (
        f'dat {{ user_tower {{ input: "user" augment_input: "au" {user} }} item_tower {{ '
        f'input: "item" augment_input: "ai" {MLP} }} output_dim: {output_dim} amm_u_weight: 1 '
        "amm_i_weight: 1 in_batch_negative: true } "
    )


AUGMENT = group("au", "user_id", more='embedding_name_suffix: "a"') + group(
    "ai", "item_id", more='embedding_name_suffix: "a"'
)
HISTORY = group("hist", "click_seq__item_id", kind="SEQUENCE")


def mind(user="", capsule="", output_dim=4):
    return (
        f'mind {{ user_tower {{ input: "user" history_input: "hist" user_mlp {{ hidden_units: 8 }} '
        f"capsule_config {{ max_seq_len: 5 high_dim: 8 {capsule} }} concat_mlp {{ hidden_units: 8 "
        f'}} {user} }} item_tower {{ input: "item" {MLP} }} output_dim: {output_dim} '
        "in_batch_negative: true } "
    )


def sasrec(more="", user='history_input: "hist" max_seq_len: 5', item=""):
    return (
        f'sequence_two_tower {{ user_tower {{ {user} }} item_tower {{ input: "item" {item} }} '
        f"in_batch_negative: true {more} }} "
    )


IDS = group("item", "item_id")


@pytest.fixture
def prepared(tmp_path):
    def run(model, *, head=HEAD, end=END):
        text = head + "model_config {\n" + model.replace("} ", "}\n") + end
        return prepare(write(tmp_path / "c.config", text))

    return run


RIGHT = {
    "dssm": (HEAD, USER + ITEM + dssm()),
    "dssm sampled": (HEAD.replace("data_config {", SAMPLER), USER + ITEM + dssm("")),
    "dssm_v2": (HEAD, USER + ITEM + dssm(model="dssm_v2")),
    "dat": (HEAD, USER + ITEM + AUGMENT + dat()),
    "mind": (SEQUENCES, group("user", "user_id") + IDS + HISTORY + mind()),
    "sasrec": (
        SEQUENCES,
        group("user", "user_id")
        + IDS
        + HISTORY
        + sasrec(
            "all_positions: true output_dim: 4",
            user='input: "user" history_input: "hist" max_seq_len: 5',
        ),
    ),
    "sasrec sampled, corrected": (
        SEQUENCES.replace(
            "data_config {",
            SAMPLER.replace(', "price"', "") + " force_base_data_group: true",
        ),
        group("user", "user_id")
        + IDS
        + HISTORY
        + sasrec(
            "all_positions: true output_dim: 4 "
            "negatives { logq_correction: true mask_accidental_hits: true "
            'item_id_feature: "item_id" }',
            user='input: "user" history_input: "hist" max_seq_len: 5',
        ).replace("in_batch_negative: true", ""),
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right(prepared, name):
    head, model = RIGHT[name]
    assert [str(warning) for warning in prepared(model, head=head).warnings] == []


MASK = "in_batch_negative: true negatives { mask_accidental_hits: true "
WRONG = {
    "no_negatives": (HEAD, USER + ITEM + dssm(""), "dssm.in_batch_negative: is false, and there is no sampler"),
    "two_kinds": (HEAD.replace("data_config {", SAMPLER), USER + ITEM + dssm(), "is true, and there is a negative_sampler"),
    "one_group": (HEAD, USER + ITEM + dssm(towers=TOWERS.replace('"item"', '"user"')), "item_tower.input: both towers read group 'user'"),
    "no_group": (HEAD, USER + ITEM + dssm(towers=TOWERS.replace('"item"', '"itm"')), "item_tower.input: there is no feature group 'itm'; did you mean 'item'"),
    "wrong_type": (HEAD, group("user", "user_id", kind="WIDE") + ITEM + dssm(), "user_tower.input: group 'user' is WIDE"),
    "sizes": (HEAD, USER + ITEM + dssm(output_dim=0, towers=TOWERS.replace("16, 8", "16, 4", 1)), "dssm.output_dim: is 0, so the vectors are as wide as what comes before it: 4 of users, 8 of items"),
    "sizes of groups": (HEAD, USER + ITEM + dssm(output_dim=0, towers=TOWERS.replace(MLP, "")), "17 of users, 32 of items"),
    "temperature": (HEAD, USER + ITEM + dssm("in_batch_negative: true temperature: 0"), "dssm.temperature: is 0, must be"),
    "no_id": (HEAD, USER + ITEM + dssm(MASK + "}"), "negatives.item_id_feature: is missing: mask_accidental_hits tells items apart by it"),
    "no_id_logq": (HEAD, USER + ITEM + dssm("in_batch_negative: true negatives { logq_correction: true }"), "is missing: logq_correction tells items apart by it"),
    "id_of_user": (HEAD, USER + ITEM + dssm(MASK + 'item_id_feature: "user_id" }'), "'user_id' is no id feature of the item group 'item'"),
    "v2_rows": (HEAD.replace("data_config {", SAMPLER), USER + ITEM + dssm("", model="dssm_v2"), "data_config.force_base_data_group: is false"),
    "augment": (HEAD, USER + ITEM + AUGMENT + dat(output_dim=4), "user_tower.augment_input: group 'au' is 16 wide, but it mimics the vectors of the other tower, of size 4"),
    "mind_history": (SEQUENCES, group("user", "user_id") + IDS + HISTORY.replace("SEQUENCE", "DEEP") + mind(), "history_input: group 'hist' is DEEP"),
    "capsule": (SEQUENCES, group("user", "user_id") + IDS + HISTORY + mind(capsule='routing_init_method: "ones"'), "routing_init_method"),
    "mind_sizes": (SEQUENCES, group("user", "user_id") + IDS + HISTORY + mind(output_dim=0).replace("concat_mlp { hidden_units: 8", "concat_mlp { hidden_units: 6"), "6 of users, 8 of items"),
    "heads": (SEQUENCES, IDS + HISTORY + sasrec(user='history_input: "hist" max_seq_len: 5 num_heads: 3'), "user_tower.num_heads: is 3, it must divide the size of a step, 8"),
    "sasrec_sizes": (SEQUENCES, IDS + HISTORY + sasrec(item="mlp { hidden_units: 4 }"), "8 of users, 4 of items"),
    "query_in_history": (SEQUENCES, IDS + group("hist", "item_id", "click_seq__item_id", kind="SEQUENCE") + sasrec(), "'item_id' is no sequence, but group 'hist' is the history"),
    "steps_unlike": (SEQUENCES, group("item", "user_id") + HISTORY + sasrec("all_positions: true"), "'click_seq__item_id' of group 'hist' and 'user_id' of group 'item' differ in table or size"),
    "steps_fewer": (SEQUENCES, group("item", "item_id", "user_id") + HISTORY + sasrec("all_positions: true", item="mlp { hidden_units: 8 }"), "has 1 features and group 'item' has 2"),
    "suffix": (SEQUENCES, group("item", "item_id", more='embedding_name_suffix: "x"') + HISTORY + sasrec(), "items and steps are looked up together"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong(prepared, name):
    head, model, message = WRONG[name]
    with pytest.raises(ConfigError) as caught:
        prepared(model, head=head)
    assert message in str(caught.value)


OBJECTIVES = [
    ("losses { binary_cross_entropy {} }", "single loss, softmax_cross_entropy, not from binary"),
    ("", "model_config.losses: is missing"),
    ("losses { softmax_cross_entropy {} } metrics { auc {} }", "auc is not for DSSM, which ranks"),
    ("losses { softmax_cross_entropy {} } metrics { mrr {} } metrics { mrr {} }", "mrr is given"),
    (
        "losses { softmax_cross_entropy {} } metrics { ndcg_at_k { top_k: 0 } }",
        "ndcg_at_k.top_k: is 0",
    ),
]


@pytest.mark.parametrize(("objectives", "message"), OBJECTIVES)
def test_wrong_objectives(prepared, objectives, message):
    with pytest.raises(ConfigError) as caught:
        prepared(USER + ITEM + dssm(), end=objectives + " }")
    assert message in str(caught.value)


def test_metrics_of_several_k_are_right(prepared):
    ks = " ".join(f"metrics {{ recall_at_k {{ top_k: {k} }} }}" for k in (1, 5))
    assert not prepared(
        USER + ITEM + dssm(), end=f"{ks} {END}".replace("k {}", "k { top_k: 9 }")
    ).warnings


def test_no_label(prepared):
    with pytest.raises(ConfigError, match="label_fields: is missing: DSSM counts rows"):
        prepared(USER + ITEM + dssm(), head=HEAD.replace('label_fields: "clk"', ""))


WARNINGS = [
    (dssm("in_batch_negative: true negatives { in_batch_and_sampled: true }"), END, "there is no sampler"),
    (dssm('in_batch_negative: true negatives { item_id_feature: "item_id" }'), END, "has no effect without mask_accidental_hits"),
    (dssm("in_batch_negative: true negatives { frequency_decay: 0.1 }"), END, "frequency_decay: has no effect"),
    (dssm(), END.replace("entropy {}", "entropy { label_smoothing: 0.1 }"), "label_smoothing: has no effect"),
    (dssm(), "num_class: 2 " + END, "num_class: has no effect"),
    (group("more", "user_id") + dssm(), END, "DSSM does not read group 'more'"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "end", "message"), WARNINGS)
def test_without_effect(prepared, model, end, message):
    (warning,) = prepared(USER + ITEM + model, end=end).warnings
    assert message in f"{warning.where}: {warning.what}"


def test_user_seq_combine_has_no_effect(prepared):
    model = group("user", "user_id") + IDS + HISTORY + mind(user="user_seq_combine: SUM")
    (warning,) = prepared(model, head=SEQUENCES).warnings
    assert warning.where == "model_config.mind.user_tower.user_seq_combine"


def test_the_samplers_id_and_that_of_the_model(prepared):
    head = HEAD.replace("data_config {", SAMPLER)
    model = dssm('negatives { mask_accidental_hits: true item_id_feature: "price" }')
    (warning,) = prepared(USER + ITEM + model, head=head).warnings
    assert "the sampler tells items apart by 'item_id'" in str(warning)


def test_drawn_positives_without_a_mask(prepared):
    head = HEAD.replace("data_config {", SAMPLER)
    model = dssm("negatives { logq_correction: true }")
    (warning,) = prepared(USER + ITEM + model, head=head).warnings
    assert "the negative_sampler draws the row's own item too" in str(warning)


def test_ranking_models_take_no_ranks(tmp_path):
    text = DEEPFM.replace("metrics { auc {} }", "metrics { ndcg_at_k {} }")
    with pytest.raises(ConfigError, match="ndcg_at_k is for two-tower models only"):
        prepare(write(tmp_path / "c.config", text))
