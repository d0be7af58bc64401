"""What TDM and its sampler ask of a config."""

from __future__ import annotations

import pytest
from config_samples import write
from test_config_rank_models import END, SEQUENCES, group

from tzrec.config import prepare
from tzrec.errors import ConfigError

SAMPLER = """tdm_sampler {
  item_input_path: "t/node_table.txt" edge_input_path: "t/edge_table.txt"
  predict_edge_input_path: "t/predict_edge_table.txt" item_id_field: "item"
  attr_fields: ["item", "price"] layer_num_sample: [0, 1, 2]
}"""
PRICE = 'feature_configs { raw_feature { feature_name: "price" expression: "item:price" } }\n'
AGE = 'feature_configs { id_feature { feature_name: "age" expression: "user:age" num_buckets: 9 embedding_dim: 8 } }\n'  # noqa: E501
SEQ = group("seq", "item", "click__item", kind="SEQUENCE")
USER = group("u", "user")
TDM = """tdm {
  multiwindow_din { windows_len: [1, 2] attn_mlp { hidden_units: 8 } } final { hidden_units: 8 }
}"""
PATH, WINDOWS = "data_config.tdm_sampler", "model_config.tdm.multiwindow_din"
FIRST = "model_config.feature_groups[0]"


def text(groups=SEQ + USER, model=TDM, sampler=SAMPLER):
    head = SEQUENCES.replace("data_config {", f"data_config {{ {sampler} ", 1)
    return f"{head}{PRICE}{AGE}model_config {{ {groups} {model} {END}"


def problems(tmp_path, config):
    """Errors of a config, or its warnings where it has none."""
    path = write(tmp_path / "c.config", config)
    try:
        return "\n".join(prepare(path, log_warnings=False).warning_lines())
    except ConfigError as error:
        return str(error)


def test_a_right_config(tmp_path):
    for groups in (SEQ + USER, SEQ, USER + SEQ + group("node", "item", "price")):
        found = problems(tmp_path, text(groups)).splitlines()
        assert [line for line in found if "in no feature group" not in line] == []


WRONG = {
    "no sequence": (text(USER), "TDM reads one SEQUENCE group, there are 0"),
    "two sequences": (
        text(SEQ + group("more", "item", "click__price", kind="SEQUENCE")),
        "TDM reads one SEQUENCE group, there are 2",
    ),
    "wide": (text(SEQ + group("w", "user", kind="WIDE")), "group 'w' is WIDE, but TDM reads"),
    "jagged": (
        text(SEQ.replace("SEQUENCE", "JAGGED_SEQUENCE")),
        f"{FIRST}: group 'seq' is JAGGED_SEQUENCE, but TDM reads SEQUENCE and DEEP",
    ),
    "no query": (
        text(group("seq", "click__item", kind="SEQUENCE")),
        f"{FIRST}: group 'seq' has no query",
    ),
    "wide query": (
        text(group("seq", "item", "user", "click__item", kind="SEQUENCE")),
        f"{FIRST}: the query is 16 wide, wider than the sequence with 8",
    ),
    "no windows": (
        text(model=TDM.replace("windows_len: [1, 2]", "")),
        f"{WINDOWS}.windows_len: is missing",
    ),
    "empty window": (
        text(model=TDM.replace("[1, 2]", "[1, 0]")),
        f"{WINDOWS}.windows_len[1]: is 0, must be at least 1",
    ),
    "no counts": (
        text(sampler=SAMPLER.replace("layer_num_sample: [0, 1, 2]", "")),
        f"{PATH}.layer_num_sample: is missing",
    ),
    "a root": (
        text(sampler=SAMPLER.replace("[0, 1, 2]", "[1, 1, 2]")),
        f"{PATH}.layer_num_sample[0]: is 1, must be 0",
    ),
    "only zeros": (
        text(sampler=SAMPLER.replace("[0, 1, 2]", "[0, 0]")),
        f"{PATH}.layer_num_sample: has only zeros",
    ),
    "ratio": (
        text(sampler=SAMPLER.replace("[0, 1, 2]", "[0, 1] remain_ratio: 1.5")),
        f"{PATH}.remain_ratio: is 1.5, must be above 0 and at most 1",
    ),
    "probability": (
        text(sampler=SAMPLER.replace("[0, 1, 2]", '[0, 1] probability_type: "UNIFROM"')),
        f"{PATH}.probability_type: is 'UNIFROM', must be one of UNIFORM, ARITHMETIC",
    ),
    "query is no attribute": (
        text(group("seq", "age", "click__item", kind="SEQUENCE")),
        "feature 'age' is the node that is scored, but its column 'age' is no attribute",
    ),
    # Warnings.
    "no sampler": (text(sampler=""), "data_config: there is no tdm_sampler"),
    "evaluation": (
        text(sampler=SAMPLER.replace("[0, 1, 2]", "[0, 1] num_eval_sample: 3")),
        f"{PATH}.num_eval_sample: has no effect",
    ),
    "an item's column": (
        text(SEQ + group("node", "price"), sampler=SAMPLER.replace(', "price"', "")),
        "column 'price' of an item is no attribute of the tree's nodes",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong(tmp_path, caplog, case):
    config, words = WRONG[case]
    assert words in problems(tmp_path, config)
