"""Every scalar field of train_config, data_config and eval_config does something, or says no.

The fields come from the schema by reflection. Each is tested to change something, or stands in the
table of fields that change nothing (`tzrec.config.no_ops`), or belongs to a part that is refused.
"""

import ast
import fnmatch
from pathlib import Path

import pytest
import test_knobs_data
import test_knobs_optim
import test_knobs_train
from knob_runs import load, scalar_fields

from tzrec.config.no_ops import NO_OPS
from tzrec.errors import Unsupported
from tzrec.protos.pipeline_pb2 import EasyRecConfig

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = ("train_config", "data_config", "eval_config")
TRAINING = "tests/training/test_training"

# Fields whose test stands beside their part.
ELSEWHERE = {
    "train_config.fine_tune_checkpoint": (
        "tests/test_main.py::test_fine_tune_starts_from_other_weights"
    ),
    "train_config.fine_tune_ckpt_param_map": (
        f"{TRAINING}_checkpoint_run.py::test_a_table_comes_from_another_name"
    ),
    "train_config.tensorboard_summaries": (
        f"{TRAINING}_summaries.py::test_each_summary_adds_its_tags_to_those_that_are_always_there"
    ),
    "train_config.save_checkpoints_timestamp_quorum": (
        f"{TRAINING}_checkpoint_cadence.py::test_quorum_by_hand"
    ),
    "train_config.compile_dense": (
        f"{TRAINING}_compiled.py::test_without_a_compiler_nothing_starts"
    ),
    "train_config.max_non_finite_steps": (
        f"{TRAINING}_nonfinite.py::test_a_run_goes_on_without_two_steps"
    ),
    "train_config.on_table_mismatch": (
        f"{TRAINING}_checkpoint_run.py::test_reset_keeps_the_other_tables"
    ),
    "train_config.delta_embedding_dump_config.dump_interval_steps": (
        f"{TRAINING}_delta.py::test_rows_of_the_steps_between_two_dumps"
    ),
    "train_config.delta_embedding_dump_config.dump_interval_minutes": (
        f"{TRAINING}_delta.py::test_minutes"
    ),
    "train_config.delta_embedding_dump_config.output_dir": (
        f"{TRAINING}_delta.py::test_names_and_places"
    ),
    "train_config.delta_embedding_dump_config.file_prefix": (
        f"{TRAINING}_delta.py::test_names_and_places"
    ),
    "train_config.delta_embedding_dump_config.quant_type": f"{TRAINING}_delta.py::test_int8",
    "eval_config.log_step_count_steps": (
        f"{TRAINING}_evaluator.py::test_a_line_at_every_few_batches"
    ),
    "train_config.dense_optimizer.*.fused": test_knobs_optim.ELSEWHERE["fused"],
    "data_config.force_base_data_group": (
        "tests/datasets/test_datasets_sampler_loader.py::test_one_data_group_for_all"
    ),
    "data_config.negative_sample_mask_prob": (
        "tests/datasets/test_datasets_sampler_loader.py::test_masks_hide_rows_of_both_kinds"
    ),
    "data_config.*negative_sampler*.*": (
        "tests/datasets/test_datasets_sampler_knobs.py::test_a_field_changes_the_draws"
    ),
    "data_config.tdm_sampler.*": (
        "tests/datasets/samplers/test_samplers_tdm_knobs.py::test_a_field_changes_the_nodes"
    ),
}
# Parts of later versions, and what of them a config must write.
LATER = {
    "train_config.delta_embedding_dump_config.feature_store_config": "{ }",
}


def all_fields():
    for section in SECTIONS:
        message = EasyRecConfig.DESCRIPTOR.fields_by_name[section].message_type
        yield from scalar_fields(message, section)


def fields_with_a_test():
    """Fields with a test in the files test_knobs_*.py."""
    optim = [*test_knobs_optim.optimizer_fields(), *test_knobs_optim.schedule_fields()]
    yield from (path.replace("[0]", "") for path in optim)
    yield "train_config.dense_optimizer.part_optimizers.regex_pattern"
    for name in ("WEIGHTS", "STATE", "RUNS", "PLACEMENT", "SWITCHES"):
        yield from getattr(test_knobs_train, name)
    for name in ("BATCHES", "OPTIONS"):
        yield from (f"data_config.{field}" for field in getattr(test_knobs_data, name))


def matches(path, patterns):
    return [pattern for pattern in patterns if fnmatch.fnmatchcase(path, pattern)]


def test_every_field_is_accounted_for():
    tested, fields = set(fields_with_a_test()), set(all_fields())
    assert len(fields) > 300
    later = [f"{part}.*" for part in LATER]
    ways = {
        path: (path in tested) + bool(matches(path, ELSEWHERE)) + (path in NO_OPS)
        + bool(matches(path, later))
        for path in fields
    }  # fmt: skip
    assert [path for path, count in sorted(ways.items()) if count == 0] == []
    assert [path for path, count in sorted(ways.items()) if count > 1 and path not in tested] == []


def test_every_entry_is_a_field():
    fields = set(all_fields())
    assert set(fields_with_a_test()) <= fields
    assert set(NO_OPS) <= fields
    assert all(any(matches(path, [pattern]) for path in fields) for pattern in ELSEWHERE)


@pytest.mark.parametrize("test", sorted(set(ELSEWHERE.values())))
def test_the_test_of_a_field_exists(test):
    file, name = test.split("::")
    tree = ast.parse((ROOT / file).read_text())
    assert name in [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("part", LATER)
def test_parts_of_later_versions_are_refused(part):
    with pytest.raises(Unsupported, match=part.rpartition(".")[2]):
        load((f"{part}={LATER[part]}",))


def test_the_documented_table_is_that_of_the_code():
    page = (ROOT / "docs/no_ops.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert rows == [f"| `{path}` | {why} |" for path, why in NO_OPS.items()]


OTHER_VALUES = {
    "train_config.grad_clipping.enable_global_grad_clip": "true",
    "data_config.fg_threads": "4",
    "data_config.is_orderby_partition": "true",
    "data_config.odps_data_quota_name": "other",
    "data_config.odps_data_compression": "ZSTD",
}


@pytest.mark.parametrize("path", NO_OPS)
def test_writing_a_field_without_effect_is_told(path):
    from knob_runs import config_path

    from tzrec.config import prepare

    quiet = prepare(config_path(), log_warnings=False).warning_lines()
    edits = [f"{path}={OTHER_VALUES[path]}"]
    lines = prepare(config_path(), edits=edits, log_warnings=False).warning_lines()
    told = [line for line in lines if line not in quiet]
    assert len(told) == 1
    assert path in told[0]
    assert "has no effect" in told[0]
