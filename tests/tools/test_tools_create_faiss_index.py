"""The interface's tool that makes a FAISS index."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tzrec.tools.create_faiss_index import main


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 8)).astype(np.float32)
    columns = {"item_id": [f"i{n % 299}" for n in range(300)], "emb": list(vectors)}
    pq.write_table(pa.table(columns), tmp_path / "items.parquet")
    return tmp_path / "items.parquet", vectors


def run(table, out, *words):
    paths = ["--embedding_input_path", str(table), "--index_output_dir", str(out)]
    fields = ["--id_field", "item_id", "--embedding_field", "emb"]
    return main([*paths, *fields, *map(str, words)])


@pytest.mark.parametrize("kind", ["IVFFlatIP", "HNSWFlatIP", "IVFFlatL2", "HNSWFlatL2"])
def test_types(table, tmp_path, kind):
    import faiss

    path, vectors = table
    assert run(path, tmp_path / "out", "--index_type", kind, "--ivf_nlist", 10) == 0
    index = faiss.read_index(str(tmp_path / "out" / "faiss_index"))
    assert type(index).__name__ == ("IndexIVFFlat" if kind.startswith("IVF") else "IndexHNSWFlat")
    assert index.ntotal == 300
    lines = (tmp_path / "out" / "id_mapping").read_text().splitlines()
    assert lines == [f"i{n % 299}" for n in range(300)]
    if kind.startswith("IVF"):
        assert index.nlist == 10
        index.nprobe = 10
    _, found = index.search(vectors[:20], 1)
    right = range(20) if kind.endswith("L2") else (vectors[:20] @ vectors.T).argmax(1)
    assert (found[:, 0] == list(right)).mean() > 0.9


def test_flags_of_the_graph(table, tmp_path):
    import faiss

    assert run(table[0], tmp_path / "out", "--index_type", "HNSWFlatIP", "--hnsw_M", 7,
               "--hnsw_efConstruction", 33) == 0  # fmt: skip
    index = faiss.read_index(str(tmp_path / "out" / "faiss_index"))
    assert index.hnsw.nb_neighbors(1) == 7
    assert index.hnsw.efConstruction == 33


def test_text_vectors_and_few_items(tmp_path):
    import faiss

    (tmp_path / "items.csv").write_text('item_id,emb\n7,"1,0"\n8,"0,1"\n')
    assert run(tmp_path / "items.csv", tmp_path / "out", "--batch_size", 1) == 0
    assert faiss.read_index(str(tmp_path / "out" / "faiss_index")).nlist == 2
    assert (tmp_path / "out" / "id_mapping").read_text() == "7\n8\n"


def test_mistakes(table, tmp_path, monkeypatch, capsys):
    assert run(table[0], tmp_path / "o", "--index_type", "Flat") == 2
    assert run(table[0], tmp_path / "o", "--ivf_nlist", 0) == 2
    assert "--ivf_nlist is 0" in capsys.readouterr().err
    assert run(table[0], tmp_path / "o", "--id_field", "item") == 3
    assert "item_id" in capsys.readouterr().err
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    assert run(table[0], tmp_path / "o") == 2
    assert "pip install faiss-cpu" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
