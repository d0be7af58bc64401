"""Rules for models with several tasks: each wrong config with the line that it must get."""
# ruff: noqa: E501

from __future__ import annotations

import pytest
from config_samples import DEEPFM, write

from tzrec.config import prepare
from tzrec.config.validate.frame import Context
from tzrec.config.validate.objectives import metric_names
from tzrec.errors import ConfigError

HEAD = DEEPFM[: DEEPFM.index("model_config {")].replace(
    'label_fields: "clk"',
    'label_fields: ["clk", "buy", "stay"] sample_weight_fields: "w"',
)
GROUP = """  feature_groups {
    group_name: "all"
    feature_names: ["user_id", "item_id", "price", "age"]
    group_type: DEEP
  }
"""
CTR = """    task_towers {
      tower_name: "ctr"
      label_name: "clk"
      losses { binary_cross_entropy {} }
      metrics { auc {} }
      mlp { hidden_units: 8 }
    }
"""
CVR = """    task_towers {
      tower_name: "cvr"
      label_name: "buy"
      losses { binary_cross_entropy {} }
      task_space_indicator_label: "clk"
      out_task_space_weight: 0
      sample_weight_name: "w"
    }
"""
STAY = """    task_towers {
      tower_name: "stay"
      label_name: "stay"
      losses { l2_loss {} }
      metrics { xauc {} }
    }
"""
MMOE = (
    HEAD
    + "model_config {\n"
    + GROUP
    + "  mmoe {\n    expert_mlp { hidden_units: [32, 16] }\n"
    + (CTR + CVR + STAY)
    + "  }\n}\n"
)
PLE = MMOE.replace(
    "  mmoe {\n    expert_mlp { hidden_units: [32, 16] }\n",
    """  ple {
    extraction_networks {
      network_name: "one"
      expert_num_per_task: 2
      task_expert_net { hidden_units: [32, 16] }
      share_num: 1
      share_expert_net { hidden_units: [24, 16] }
    }
""",
)
SIMPLE = MMOE.replace(
    "  mmoe {\n    expert_mlp { hidden_units: [32, 16] }\n", "  simple_multi_task {\n"
)
ESMM = (
    HEAD.replace(', "stay"] sample_weight_fields: "w"', "]")
    + "model_config {\n"
    + GROUP
    + "  esmm {\n"
    + CTR.replace("task_towers", "ctr_tower")
    + """    cvr_tower {
      tower_name: "cvr"
      label_name: "buy"
      losses { binary_cross_entropy {} }
      metrics { auc {} }
    }
  }
}
"""
)
TOWER = "model_config.mmoe.task_towers"
BCE = "losses { binary_cross_entropy {} }"
CTR_NAME = 'tower_name: "ctr"'

# (config, (old, new)..., a line)
CASES = {
    "no towers": (MMOE, (CTR + CVR + STAY, ""), "model_config.mmoe.task_towers: is missing: the model has no task"),
    "twin towers": (MMOE, ('tower_name: "cvr"', CTR_NAME), f"{TOWER}[1].tower_name: two towers are called 'ctr'"),
    "dotted name": (MMOE, (CTR_NAME, 'tower_name: "c.tr"'), f"{TOWER}[0].tower_name: is 'c.tr': it becomes part of parameter names"),
    "name of torch": (MMOE, (CTR_NAME, 'tower_name: "type"'), f"{TOWER}[0].tower_name: is 'type': it becomes part"),
    "word of Python": (MMOE, (CTR_NAME, 'tower_name: "return"'), f"{TOWER}[0].tower_name: is 'return': it becomes part"),
    "empty name": (MMOE, (CTR_NAME, 'tower_name: ""'), f"{TOWER}[0].tower_name: is '': it becomes part"),
    "no name": (MMOE, (CTR_NAME, ""), f"{TOWER}[0].tower_name: is missing"),
    "no loss": (MMOE, (BCE, ""), f"{TOWER}[0].losses: is missing: tower 'ctr' has nothing to learn"),
    "empty loss": (MMOE, (BCE, "losses {}"), f"{TOWER}[0].losses[0]: is empty: choose a loss"),
    "loss twice": (MMOE, (BCE, BCE * 2), f"{TOWER}[0].losses[1].binary_cross_entropy: loss binary_cross_entropy is given twice"),
    "no label": (MMOE, ('label_name: "clk"', ""), f"{TOWER}[0].label_name: is missing"),
    "empty label": (MMOE, ('label_name: "clk"', 'label_name: ""'), f"{TOWER}[0].label_name: is missing: the column that the losses learn from"),
    "unknown label": (MMOE, ('label_name: "stay"', 'label_name: "stai"'), f"{TOWER}[2].label_name: column 'stai' is not in data_config.label_fields; did you mean 'stay'?"),
    "unknown indicator": (MMOE, ('indicator_label: "clk"', 'indicator_label: "click"'), f"{TOWER}[1].task_space_indicator_label: column 'click' is not in data_config.label_fields"),
    "unknown weight": (MMOE, ('sample_weight_name: "w"', 'sample_weight_name: "ww"'), f"{TOWER}[1].sample_weight_name: column 'ww' is not in data_config.sample_weight_fields; did you mean 'w'?"),
    "classes": (MMOE, (BCE, BCE + " num_class: 2"), f"{TOWER}[0].losses[0].binary_cross_entropy: binary_cross_entropy needs num_class 1, but it is 2"),
    "no classes": (MMOE, (BCE, BCE + " num_class: 0"), ("metrics { auc {} }", ""), f"{TOWER}[0].num_class: is 0, must be at least 1"),
    "metric of another loss": (MMOE, ("xauc {}", "auc {}"), f"{TOWER}[2].metrics[0].auc: auc needs probabilities, which l2_loss does not give"),
    "metric twice": (MMOE, ("metrics { auc {} }", "metrics { auc {} } metrics { auc {} }"), f"{TOWER}[0].metrics[1].auc: metric auc is given twice"),
    "train metric": (MMOE, ("metrics { auc {} }", "train_metrics { xauc {} }"), f"{TOWER}[0].train_metrics[0].xauc: xauc needs a regression, which binary_cross_entropy does not give"),
    "grouping key": (MMOE, ("metrics { auc {} }", 'metrics { grouped_auc { grouping_key: "usr" } }'), f"{TOWER}[0].metrics[0].grouped_auc.grouping_key: there is no feature 'usr'"),
    "negative weight": (MMOE, (BCE, BCE + " weight: -1"), f"{TOWER}[0].weight: is -1, must be at least 0"),
    "negative space weight": (MMOE, ("out_task_space_weight: 0", "out_task_space_weight: -1"), f"{TOWER}[1].out_task_space_weight: is -1, must be at least 0"),
    "no experts": (MMOE, ("expert_mlp { hidden_units: [32, 16] }", ""), "model_config.mmoe.expert_mlp: is missing"),
    "zero experts": (MMOE, ("[32, 16] }", "[32, 16] } num_expert: 0"), "model_config.mmoe.num_expert: is 0, must be at least 1"),
    "wide first": (MMOE, ("group_type: DEEP", "group_type: WIDE"), (', "age"]', "]"), "model_config.feature_groups[0]: group 'all' is WIDE, but MMoE needs it to be DEEP here"),
    "pareto bound": (MMOE, (BCE, BCE + " pareto_min_loss_weight: 1"), f"{TOWER}[0].pareto_min_loss_weight: is 1, must be at least 0 and below 1"),
    "pareto sum": (
        MMOE, (BCE, BCE + " pareto_min_loss_weight: 0.4"), ("losses { l2_loss {} }", "losses { l2_loss {} } pareto_min_loss_weight: 0.6"), ("  mmoe {", "  use_pareto_loss_weight: true mmoe {"),
        f"{TOWER}[0].pareto_min_loss_weight: the least weights of the 3 losses add up to 1, but all weights add up to 1",
    ),
    "pareto sum of two losses": (
        MMOE, (BCE, BCE + " losses { binary_focal_loss {} } pareto_min_loss_weight: 0.6"), ("  mmoe {", "  use_pareto_loss_weight: true mmoe {"),
        f"{TOWER}[0].pareto_min_loss_weight: the least weights of the 4 losses add up to 1.2",
    ),
    "no networks": (PLE, (PLE[PLE.index("    extraction_networks") : PLE.index("    task_towers")], ""), "model_config.ple.extraction_networks: is missing: the model has no experts"),
    "own experts": (PLE, ("expert_num_per_task: 2", "expert_num_per_task: 0"), "model_config.ple.extraction_networks[0].expert_num_per_task: is 0, must be at least 1"),
    "twin networks": (PLE, ("    extraction_networks", '    extraction_networks { network_name: "one" expert_num_per_task: 1 task_expert_net { hidden_units: 4 } }\n    extraction_networks'), "model_config.ple.extraction_networks[1].network_name: 'one' is given twice"),
    "no shared net": (PLE, ("      share_expert_net { hidden_units: [24, 16] }\n", ""), "model_config.ple.extraction_networks[0].share_expert_net: is missing: share_num is 1"),
    "widths": (PLE, ("[24, 16]", "[16, 24]"), "model_config.ple.extraction_networks[0].share_expert_net.hidden_units: shared experts are 24 wide and those of tasks 16"),
    "dotted network": (PLE, ('"one"', '"o.ne"'), "model_config.ple.extraction_networks[0].network_name: is 'o.ne': it becomes part of parameter names"),
    "regression of esmm": (ESMM, ("metrics { auc {} }", ""), (BCE, "losses { l2_loss {} }"), "model_config.esmm.ctr_tower.losses[0].l2_loss: ESMM multiplies probabilities, which l2_loss does not give"),
    "no tower of esmm": (ESMM, (ESMM[ESMM.index("    cvr_tower") : ESMM.rindex("  }")], ""), "model_config.esmm.cvr_tower: is missing"),
    "name of both": (ESMM, ('tower_name: "cvr"', 'tower_name: "ctcvr"'), "model_config.esmm.cvr_tower.tower_name: is 'ctcvr', the name of click and conversion together"),
    "one label": (ESMM, ('label_name: "buy"', 'label_name: "clk"'), "model_config.esmm.cvr_tower.label_name: is 'clk', the label of ctr_tower"),
    "watched metric": (MMOE, ("num_epochs: 1", 'num_epochs: 1 early_stop { metric: "auc" }'), "train_config.early_stop.metric: there is no metric 'auc'; did you mean 'auc_ctr'?"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_wrong_config(tmp_path, name):
    text, *changes, line = CASES[name]
    with pytest.raises(ConfigError) as caught:
        prepare(write(tmp_path / "c.config", text, *changes))
    found = [text.split(": ", 1)[1] for text in str(caught.value).splitlines() if text[0] != " "]
    assert [text for text in found if text.startswith(line)], found
    # What else is wrong follows from it.
    assert len(found) == 1 + (name == "no classes"), found


@pytest.mark.parametrize("text", [MMOE, PLE, SIMPLE, ESMM], ids=["mmoe", "ple", "simple", "esmm"])
def test_correct_configs_have_no_problem_and_no_warning(tmp_path, text):
    assert prepare(write(tmp_path / "c.config", text)).warnings == ()


WARNINGS = {
    "top losses": (MMOE, ("  mmoe {", f"  {BCE} mmoe {{"), "losses stand in task_towers"),
    "top metrics": (MMOE, ("  mmoe {", "  metrics { auc {} } mmoe {"), "metrics stand in task_towers"),
    "top classes": (MMOE, ("  mmoe {", "  num_class: 2 mmoe {"), "num_class stands in task_towers"),
    "unread label": (MMOE, ('"stay"]', '"stay", "like"]'), "'like' has no effect: no tower names it"),
    "unread weight": (MMOE, ('sample_weight_fields: "w"', 'sample_weight_fields: ["w", "v"]'), "'v' has no effect: no tower names it"),
    "weight 0": (MMOE, (BCE, BCE + " weight: 0"), "is 0: nothing is learnt from this task"),
    "loss weight 0": (MMOE, (BCE, "losses { binary_cross_entropy {} weight: 0 }"), "is 0: nothing is learnt from it"),
    "space without indicator": (MMOE, (BCE, BCE + " in_task_space_weight: 2"), "has no effect without task_space_indicator_label"),
    "empty space": (MMOE, ("out_task_space_weight: 0", "out_task_space_weight: 0 in_task_space_weight: 0"), "and so is out_task_space_weight: nothing is learnt"),
    "bound without pareto": (MMOE, (BCE, BCE + " pareto_min_loss_weight: 0.1"), "has no effect without model_config.use_pareto_loss_weight: true"),
    "one expert": (MMOE, ("[32, 16] }", "[32, 16] } num_expert: 1"), "the gates have nothing to choose from"),
    "second group": (MMOE, ("  mmoe {", '  feature_groups { group_name: "more" feature_names: "age" group_type: DEEP } mmoe {'), "MMoE does not read group 'more'"),
    "shared net without experts": (PLE, ("      share_num: 1\n", ""), "has no effect without share_num"),
}  # fmt: skip


@pytest.mark.parametrize("name", WARNINGS)
def test_odd_configs_warn(tmp_path, name):
    text, *changes, expected = WARNINGS[name]
    (warning,) = prepare(write(tmp_path / "c.config", text, *changes)).warning_lines()
    assert expected in warning


def test_pareto_of_one_loss_warns(tmp_path):
    changes = (CVR + STAY, ""), ("  mmoe {", "  use_pareto_loss_weight: true mmoe {")
    lines = prepare(write(tmp_path / "c.config", MMOE, *changes)).warning_lines()
    assert any("has no effect: there is one loss to weigh" in line for line in lines)


def test_names_of_the_metrics(tmp_path):
    def names(text):
        return metric_names(Context(prepare(write(tmp_path / "c.config", text)).config))

    losses = ["binary_cross_entropy_ctr", "binary_cross_entropy_cvr"]
    assert names(MMOE) == ["auc_ctr", "xauc_stay", *losses, "l2_loss_stay"]
    assert names(ESMM) == ["auc_ctr", "auc_cvr", "auc_ctcvr", *losses]


def test_a_watched_metric_of_a_task_is_known(tmp_path):
    change = ("num_epochs: 1", 'num_epochs: 1 early_stop { metric: "auc_ctr" }')
    best = (
        "train_config {",
        'export_config { exporter_type: "best" best_exporter_metric: "xauc_stay" }\ntrain_config {',
    )
    assert prepare(write(tmp_path / "c.config", MMOE, change, best)).warnings == ()


def test_features_that_group_the_rows_of_a_task_are_used(tmp_path):
    features = ('feature_names: ["user_id", "item_id", ', 'feature_names: ["item_id", ')
    metric = ("metrics { auc {} }", 'metrics { grouped_auc { grouping_key: "user_id" } }')
    (line,) = prepare(write(tmp_path / "c.config", MMOE, features)).warning_lines()
    assert "'user_id' is read from the data, but in no feature group" in line
    assert prepare(write(tmp_path / "c.config", MMOE, features, metric)).warnings == ()
