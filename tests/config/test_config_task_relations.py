# ruff: noqa: E501
"""Config rules of DBMTL, DC2VR, PEPNet and STEM."""

import pytest
from config_samples import write

from tzrec.config import prepare
from tzrec.errors import ConfigError

HEAD = """
train_input_path: "train.parquet" eval_input_path: "eval.parquet" model_dir: "run"
train_config {
  sparse_optimizer { adagrad_optimizer { lr: 0.001 } constant_learning_rate {} }
  dense_optimizer { adam_optimizer { lr: 0.001 } constant_learning_rate {} }
  num_epochs: 1
}
data_config { batch_size: 256 label_fields: ["clk", "buy", "city"] }
feature_configs { id_feature { feature_name: "user" expression: "user:user" num_buckets: 9 embedding_dim: 8 } }
feature_configs { id_feature { feature_name: "item" expression: "item:item" num_buckets: 9 embedding_dim: 4 } }
model_config {
"""
LOSS = "losses { binary_cross_entropy {} } metrics { auc {} }"
CTR = f'task_towers {{ tower_name: "ctr" label_name: "clk" {LOSS} %s }}'
CVR = f'task_towers {{ tower_name: "cvr" label_name: "buy" {LOSS} %s }}'
MLP = "mlp { hidden_units: 16 }"


def group(name, features="user item", more=""):
    names = ", ".join(f'"{feature}"' for feature in features.split())
    return f'feature_groups {{ group_name: "{name}" feature_names: [{names}] {more} }}\n'


def suffixed(name):
    return group(name, more=f'embedding_name_suffix: "{name}"')


ALL = group("all")


def model(name, *, ctr="", cvr="", fields="", groups=ALL):
    return f"{groups} {name} {{ {fields}\n{CTR % ctr}\n{CVR % cvr} }}"


def stem(groups, **kwargs):
    return model("stem", groups=groups, fields=f"expert_{MLP}", **kwargs)


RANK = "low_rank_dim: 4"
DBMTL = model("dbmtl", cvr='relation_tower_names: "ctr" relation_mlp { hidden_units: 8 }')
DC2VR = model("dc2vr", ctr=RANK, cvr=f'intervention_tower_names: "ctr" {RANK}')
DOMAINS = 'task_domain_num: 2 domain_input_name: "city"'
PPNET = "ppnet_hidden_units: [8, 4]"
GATED = group("all") + group("uia") + group("domain")
PEPNET = model("pepnet", fields=f"{DOMAINS} {PPNET} epnet_gamma: 1", groups=GATED)
STEM = stem(suffixed("shared") + suffixed("ctr") + suffixed("cvr"))


def lines_of(tmp_path, text):
    """Errors, or else warnings; without "file:line: "."""
    try:
        lines = prepare(write(tmp_path / "c.config", HEAD + text + "}"), log_warnings=False)
    except ConfigError as error:
        return [line.partition(": ")[2] for line in str(error).splitlines()]
    return ["warning", *(line.split(": ", 1)[1] for line in lines.warning_lines())]


@pytest.mark.parametrize("text", [DBMTL, DC2VR, PEPNET, STEM])
def test_good_configs(tmp_path, text):
    lines = [line for line in lines_of(tmp_path, text) if "'city' has no effect" not in line]
    assert lines == ["warning"]


WRONG = [
    # Relations.
    (DBMTL.replace('"ctr" relation', '"ctrr" relation'),
     "dbmtl.task_towers[1].relation_tower_names[0]: there is no tower 'ctrr'; did you mean 'ctr'?"),
    (DBMTL.replace('"ctr" relation', '"cvr" relation'), "relation_tower_names[0]: 'cvr' is the tower itself"),
    (DBMTL.replace('names: "ctr"', 'names: ["ctr", "ctr"]'), "relation_tower_names[1]: tower 'ctr' is given twice"),
    (model("dbmtl", ctr='relation_tower_names: "cvr" relation_mlp { hidden_units: 8 }'),
     "task_towers[0].relation_tower_names[0]: tower 'cvr' stands after 'ctr'"),
    (model("dc2vr", ctr=f'intervention_tower_names: "cvr" {RANK}', cvr=RANK),
     "task_towers[0].intervention_tower_names[0]: tower 'cvr' stands after 'ctr'"),
    (DBMTL.replace("dbmtl {", "dbmtl { num_expert: 0"), "dbmtl.num_expert: is 0, must be at least 1"),
    # Ranks.
    (DC2VR.replace("dim: 4", "dim: 12"), "dc2vr.task_towers[1].low_rank_dim: is 12, must be below 12, the width of tower 'cvr'"),
    (DC2VR.replace("dc2vr {", f"dc2vr {{ bottom_{MLP}").replace("dim: 4", "dim: 16"), "must be below 16, the width of tower 'cvr'"),
    (DC2VR.replace("dc2vr {", "dc2vr { expert_mlp { hidden_units: [32, 4] }"), "must be below 4, the width of tower 'cvr'"),
    (model("dc2vr", ctr=f"{RANK} mlp {{ hidden_units: 3 }}", cvr=f'intervention_tower_names: "ctr" {RANK}'),
     "low_rank_dim: is 4, must be below 3, the width of ctr"),
    (DC2VR.replace("dim: 4", "dim: 0"), "low_rank_dim: is 0, must be at least 1"),
    (DC2VR.replace(RANK, "", 1), "dc2vr.task_towers[0].low_rank_dim: is missing"),
    (DC2VR.replace(RANK, f"{RANK} dropout_ratio: 1"), "dropout_ratio: is 1, must be at least 0 and below 1"),
    # Domains and gates.
    (PEPNET.replace(DOMAINS, "task_domain_num: 2"), "pepnet.domain_input_name: is missing: task_domain_num is 2"),
    (PEPNET.replace('name: "city"', 'name: "citty"'), "pepnet.domain_input_name: column 'citty' is not in data_config.label_fields; did you mean 'city'?"),
    (PEPNET.replace(PPNET, PPNET + " ppnet_dropout_ratio: [0, 0, 0]"), "ppnet_dropout_ratio: has 3 values for 2 layers"),
    (PEPNET.replace(PPNET, PPNET + " ppnet_dropout_ratio: 1"), "ppnet_dropout_ratio[0]: is 1, must be at least 0 and below 1"),
    (PEPNET.replace(PPNET, PPNET + ' ppnet_activation: "nn.ReLu"'), "ppnet_activation: is 'nn.ReLu', torch has no such activation; did you mean 'nn.ReLU'?"),
    (PEPNET.replace("gamma: 1", "gamma: 0"), "epnet_gamma: is 0, must be above 0"),
    (PEPNET.replace(PPNET, "ppnet_hidden_units: 0"), "ppnet_hidden_units[0]: is 0, must be at least 1"),
    (PEPNET.replace(group("all"), ""), "pepnet: the model needs a feature group named 'all'"),
    (PEPNET.replace(group("uia"), group("uia", more="group_type: WIDE")), "group 'uia' is WIDE, but PEPNet needs it to be DEEP"),
    # Groups of STEM.
    (STEM.replace('group_name: "cvr"', 'group_name: "cvrr"'), "stem.task_towers[1].tower_name: the model needs a feature group named 'cvr'; did you mean 'cvrr'?"),
    (STEM.replace('group_name: "shared"', 'group_name: "x"'), "stem: the model needs a feature group named 'shared'"),
    (STEM.replace('tower_name: "cvr"', 'tower_name: "shared"'), "task_towers[1].tower_name: is 'shared', the name of the group of all tasks"),
    (STEM.replace('suffix: "cvr"', 'suffix: "cvr" group_type: WIDE'), "feature_groups[2].group_type: is not DEEP, but tower 'cvr' reads group 'cvr'"),
    (STEM.replace("stem {", "stem { num_task_expert: 0"), "stem.num_task_expert: is 0, must be at least 1"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), WRONG, ids=lambda value: value[-30:])
def test_wrong_configs(tmp_path, text, words):
    lines = lines_of(tmp_path, text)
    assert lines[0] != "warning"
    assert words in lines[0], lines


ODD = [
    (DBMTL.replace("relation_mlp { hidden_units: 8 }", ""), "task_towers[1].relation_tower_names: has no effect without relation_mlp"),
    (DBMTL.replace("dbmtl {", f"dbmtl {{ gate_{MLP} num_expert: 2"), "dbmtl.gate_mlp: has no effect without expert_mlp"),
    (DBMTL.replace("dbmtl {", f"dbmtl {{ gate_{MLP} num_expert: 2"), "dbmtl.num_expert: has no effect without expert_mlp"),
    (DC2VR.replace("dc2vr {", f"dc2vr {{ expert_{MLP} num_expert: 1"), "dc2vr.num_expert: is 1: the gates have nothing to choose from"),
    (DC2VR.replace(RANK, f"{RANK} dropout_ratio: 0.2", 1), "task_towers[0].dropout_ratio: has no effect without intervention_tower_names"),
    (PEPNET.replace("num: 2", "num: 1"), "pepnet.domain_input_name: has no effect: task_domain_num is 1"),
    (PEPNET.replace(group("domain"), ""), "epnet_gamma: has no effect without a feature group 'domain'"),
    (PEPNET.replace(PPNET, ""), "PEPNet does not read group 'uia' without ppnet_hidden_units"),
    (PEPNET.replace(group("uia"), ""), "PPNet's layers have no gates without a feature group 'uia'"),
    (PEPNET.replace("pepnet {", group("domian") + "pepnet {").replace(group("domain"), ""), "PEPNet does not read group 'domian'; did you mean 'domain'?"),
    (STEM.replace("stem {", group("other") + "stem {"), "STEM does not read group 'other'"),
    (STEM.replace('embedding_name_suffix: "cvr"', 'embedding_name_suffix: "ctr"'), "feature_groups[2]: shares table 'user_emb' with group 'ctr'"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), ODD, ids=lambda value: value[-30:])
def test_odd_configs(tmp_path, text, words):
    lines = lines_of(tmp_path, text)
    assert lines[0] == "warning", lines
    assert any(words in line for line in lines), lines


def test_a_tower_that_others_read_needs_no_loss(tmp_path):
    silent = 'task_towers { tower_name: "ctr" mlp { hidden_units: 16 } }'
    text = DBMTL.replace(CTR % "", silent)
    assert silent in text
    assert lines_of(tmp_path, text)[0] == "warning"
    assert "nothing to learn" in lines_of(tmp_path, text.replace('names: "ctr"', "names: []"))[0]


def test_metrics_of_towers_are_known(tmp_path):
    early = "num_epochs: 1 early_stop { metric: %s }"
    for name, kind in (
        ('"auc_cvr"', "warning"),
        ('"auc"', "early_stop.metric: there is no metric"),
    ):
        text = (HEAD + PEPNET + "}").replace("num_epochs: 1", early % name)
        path = write(tmp_path / "c.config", text)
        if kind == "warning":
            prepare(path, log_warnings=False)
        else:
            with pytest.raises(ConfigError, match=kind):
                prepare(path)
