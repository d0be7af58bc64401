"""Every two-tower model: exported towers, their retriever, and one row as many."""

import match_jobs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tzrec.config import prepare
from tzrec.deploy import parts
from tzrec.deploy.export import export_parts
from tzrec.options import Options
from tzrec.retrieval import IndexOptions, Retriever
from tzrec.retrieval.build import index_export
from tzrec.training.build import build_features, build_model

HISTORY = """
feature_configs { sequence_feature { sequence_name: "hist" sequence_length: 5 sequence_delim: ";"
    features { id_feature { feature_name: "item_id" expression: "item:item_id"
        num_buckets: 41 embedding_dim: 8 embedding_name: "item" } } } }
"""
GROUPS = """
feature_groups { group_name: "user" feature_names: ["user_id", "likes", "age"] group_type: DEEP }
feature_groups { group_name: "item" feature_names: ["item_id", "price"] group_type: DEEP }
feature_groups { group_name: "id" feature_names: "item_id" group_type: DEEP }
feature_groups { group_name: "hist" feature_names: "hist__item_id" group_type: SEQUENCE }
feature_groups { group_name: "augment_u" feature_names: "user_id" group_type: DEEP
    embedding_name_suffix: "augment" }
feature_groups { group_name: "augment_i" feature_names: "item_id" group_type: DEEP
    embedding_name_suffix: "augment" }
"""
MLP = "mlp { hidden_units: [8] }"
MODELS = {
    "DSSMV2": f"""dssm_v2 {{ user_tower {{ input: "user" {MLP} }}
        item_tower {{ input: "item" {MLP} }} output_dim: 8 }}""",
    "DAT": f"""dat {{ user_tower {{ input: "user" augment_input: "augment_u" {MLP} }}
        item_tower {{ input: "item" augment_input: "augment_i" {MLP} }}
        output_dim: 8 amm_u_weight: 0.5 amm_i_weight: 0.5 }}""",
    "MIND": f"""mind {{ user_tower {{ input: "user" history_input: "hist"
        user_mlp {{ hidden_units: [8, 8] }} concat_mlp {{ hidden_units: [8, 8] }}
        capsule_config {{ max_k: 3 max_seq_len: 4 high_dim: 8 }} }}
        item_tower {{ input: "item" {MLP} }} output_dim: 8 }}""",
    "SequenceTwoTower": f"""sequence_two_tower {{
        user_tower {{ input: "user" history_input: "hist" max_seq_len: 4 {MLP} }}
        item_tower {{ input: "id" {MLP} }} output_dim: 8 }}""",
}


@pytest.mark.parametrize("name", MODELS)
def test_towers_become_a_retriever(tmp_path, name):
    """With a sampler: item features then live on other rows than those of users."""
    path = match_jobs.write_job(tmp_path, with_sampler=True)
    text = path.read_text()
    text = text[: text.index("model_config {")]
    if name in ("DSSMV2", "SequenceTwoTower"):
        text = text.replace("label_fields", "force_base_data_group: true label_fields")
    used = [line for line in GROUPS.split("feature_groups")[1:] if _is_used(line, MODELS[name])]
    groups = "".join(f"feature_groups{line}" for line in used)
    path.write_text(
        f"{text}{HISTORY} model_config {{ {groups} {MODELS[name]} "
        "losses { softmax_cross_entropy {} } }"
    )
    rows = match_jobs.make_rows(70)
    history = ["3;4;5" if n % 3 else None for n in range(70)]
    rows = rows.append_column("hist__item_id", pa.array(history))
    pq.write_table(rows, tmp_path / "train.parquet")
    config = prepare(str(path)).config
    features = build_features(config.data_config, config.feature_configs)
    torch.manual_seed(1)
    model = build_model(config, features, with_labels=False).eval()
    model.set_is_inference(True)
    made = parts.sample_parts(model, config, features, Options())
    assert type(model).__name__ == name
    export = export_parts(made, tmp_path / "export")
    index_export(str(export), str(tmp_path / "items.parquet"), str(tmp_path / "r"),
                 IndexOptions())  # fmt: skip
    retriever = Retriever.load(tmp_path / "r")
    vectors = retriever.embed(rows)
    assert vectors.shape == ((70, 3, 8) if name == "MIND" else (70, 8))
    for row in (0, 1, 7):
        np.testing.assert_allclose(
            retriever.embed(rows.slice(row, 1))[0], vectors[row], rtol=0, atol=1e-6
        )
    three = vectors if name == "MIND" else vectors[:, None]
    scores = np.einsum("bid,nd->bin", three, retriever.index.vectors)
    scores = np.where(three.any(2)[:, :, None], scores, -np.inf).max(1)
    found = retriever.retrieve(rows, k=4)
    np.testing.assert_allclose(found.scores, -np.sort(-scores, axis=1)[:, :4], atol=1e-5)


def _is_used(group, model):
    return f'"{group.split(chr(34))[1]}"' in model
