"""The generated protobuf modules: fresh, free of version stamps, all importable."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import text_format

from tzrec.protos import (
    data_pb2,
    loss_pb2,
    metric_pb2,
    model_pb2,
    optimizer_pb2,
    pipeline_pb2,
    sampler_pb2,
    train_pb2,
)
from tzrec.protos.models import match_model_pb2

ROOT = Path(__file__).resolve().parents[1]
PROTOS = sorted((ROOT / "tzrec" / "protos").rglob("*.proto"))


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    if importlib.util.find_spec("grpc_tools") is None:
        pytest.skip("grpcio-tools is not installed")
    out = tmp_path_factory.mktemp("protos")
    # In its own process: protoc registers names globally.
    subprocess.run([sys.executable, "scripts/gen_proto.py", str(out)], cwd=ROOT, check=True)
    return out


@pytest.mark.parametrize("proto", PROTOS, ids=lambda p: p.stem)
@pytest.mark.parametrize("suffix", ["_pb2.py", "_pb2.pyi"])
def test_committed_modules_are_what_the_schema_generates(generated, proto, suffix):
    name = proto.relative_to(ROOT).with_name(proto.stem + suffix)
    assert (ROOT / name).read_text() == (generated / name).read_text(), "run `make proto`"


def test_nothing_is_left_of_removed_protos():
    expected = {proto.stem + s for proto in PROTOS for s in ("_pb2.py", "_pb2.pyi")}
    found = {path.name for path in (ROOT / "tzrec" / "protos").rglob("*_pb2.py*")}
    assert found - {name for name in found if name.endswith(".pyc")} == expected


@pytest.mark.parametrize("proto", PROTOS, ids=lambda p: p.stem)
def test_any_protobuf_major_may_load_them(proto):
    """protoc's stamp makes an older runtime refuse the module."""
    text = proto.with_name(f"{proto.stem}_pb2.py").read_text()
    assert "runtime_version" not in text
    assert "Protobuf Python Version" not in text


OWN_FIELDS = {
    model_pb2.ModelConfig: [
        "custom_model",
        "final_mlp",
        "autoint",
        "gdcn",
        "transact",
        "esmm",
        "stem",
        "sequence_two_tower",
    ],
    match_model_pb2.DSSM: ["negatives"],
    match_model_pb2.DSSMV2: ["negatives"],
    match_model_pb2.DAT: ["negatives"],
    match_model_pb2.MIND: ["negatives"],
    metric_pb2.MetricConfig: ["hitrate_at_k", "ndcg_at_k", "mrr"],
    metric_pb2.TrainMetricConfig: ["hitrate_at_k", "ndcg_at_k", "mrr"],
    sampler_pb2.NegativeSampler: ["string_ids", "weight_field"],
    sampler_pb2.NegativeSamplerV2: ["string_ids", "weight_field"],
    sampler_pb2.HardNegativeSampler: ["string_ids", "weight_field"],
    sampler_pb2.HardNegativeSamplerV2: ["string_ids", "weight_field"],
    sampler_pb2.TDMSampler: ["string_ids", "weight_field"],
    loss_pb2.LossConfig: ["weight"],
    train_pb2.TrainConfig: [
        "early_stop",
        "embedding_l2",
        "dense_l2",
        "seed",
        "max_non_finite_steps",
        "on_table_mismatch",
        "embedding_l2_all_rows",
        "compile_dense",
    ],
    data_pb2.DataConfig: ["loader", "max_bad_rows", "event_time_field"],
    optimizer_pb2.DenseOptimizer: ["reduce_on_plateau_learning_rate"],
    optimizer_pb2.SparseOptimizer: ["reduce_on_plateau_learning_rate"],
}


@pytest.mark.parametrize("message", OWN_FIELDS, ids=lambda m: m.DESCRIPTOR.name)
def test_own_fields_stay_out_of_the_way_of_the_interface(message):
    own = {field.name for field in message.DESCRIPTOR.fields if field.number >= 2000}
    assert own == set(OWN_FIELDS[message])


def test_text_that_the_interface_allows():
    text = """
    train_input_path: 'a,b' eval_input_path: "" model_dir: "m"  # a comment
    data_config { dataset_type: CsvDataset label_fields: "x" label_fields: ['y', 'z']
                  fg_encoded_multival_sep: "\\x02" }
    model_config { feature_groups { group_name: "g" group_type: WIDE feature_names: "one" } }
    """
    config = text_format.Parse(text, pipeline_pb2.EasyRecConfig())
    assert list(config.data_config.label_fields) == ["x", "y", "z"]
    assert config.data_config.fg_encoded_multival_sep == "\x02"
    assert list(config.model_config.feature_groups[0].feature_names) == ["one"]
