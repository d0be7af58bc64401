"""Which rows features live on."""

from __future__ import annotations

import pytest
from features_helpers import config

from tzrec.constant import BASE_DATA_GROUP, NEG_DATA_GROUP
from tzrec.errors import ConfigError
from tzrec.features.feature import FgMode, create_features

SIZE = "hash_bucket_size: 9 embedding_dim: 4"
USER = f'id_feature {{ feature_name: "user" expression: "user:user_id" {SIZE} }}'
ITEM = f'id_feature {{ feature_name: "item" expression: "item:item_id" {SIZE} }}'
PAIR = f'combo_feature {{ feature_name: "pair" expression: ["item:item_id", "item:brand"] {SIZE} }}'
CROSS = (
    f'combo_feature {{ feature_name: "cross" expression: ["user:user_id", "item:item_id"] {SIZE} }}'
)
SAMPLED = ("item_id", "brand")


def expr(name, formula, *variables):
    """A stub, which other features read."""
    return (
        f'expr_feature {{ feature_name: "{name}" expression: "{formula}" '
        f"variables: {list(variables)} stub_type: true }}"
    )


def groups(*texts, mode=FgMode.FG_DAG, neg_fields=SAMPLED, **options):
    configs = [config(text) for text in texts]
    features = create_features(configs, mode, neg_fields=neg_fields, **options)
    return {f.name: (f.data_group, f.reads_sampled_rows) for f in features}


def test_features_of_sampled_columns_have_their_rows():
    assert groups(USER, ITEM, PAIR) == {
        "user": (BASE_DATA_GROUP, False),
        "item": (NEG_DATA_GROUP, True),
        "pair": (NEG_DATA_GROUP, True),
    }


def test_one_group_for_all_still_masks_by_row():
    assert groups(USER, ITEM, force_base_data_group=True) == {
        "user": (BASE_DATA_GROUP, False),
        "item": (BASE_DATA_GROUP, True),
    }


def test_rows_go_through_other_features():
    far = f'id_feature {{ feature_name: "far" expression: "feature:stub" {SIZE} }}'
    assert groups(far, expr("stub", "brand", "item:brand"))["far"] == (NEG_DATA_GROUP, True)
    assert groups(far, expr("stub", "age", "user:age"))["far"] == (BASE_DATA_GROUP, False)


@pytest.mark.parametrize("force", [False, True])
def test_a_feature_of_both_has_no_number_of_rows(force):
    with pytest.raises(ConfigError, match=r"'cross' reads 'item_id', .* and 'user_id', which it"):
        groups(USER, CROSS, force_base_data_group=force)


def test_so_has_one_that_reads_them_through_others():
    stub, both = expr("a", "brand", "item:brand"), expr("b", "a+age", "feature:a", "user:age")
    with pytest.raises(ConfigError, match=r"'b' reads 'brand', .* and 'age', which"):
        groups(stub, both)


def test_generated_columns_are_called_like_the_features():
    """So a feature has one column, whatever its kind."""
    found = groups(USER, CROSS, mode=FgMode.FG_NONE, neg_fields=["cross"])
    assert found["cross"] == (NEG_DATA_GROUP, True)


def test_without_a_sampler():
    assert set(groups(USER, ITEM, CROSS, neg_fields=None).values()) == {(BASE_DATA_GROUP, False)}
