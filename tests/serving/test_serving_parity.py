"""What is trained is what is served: checkpoint, export, library and HTTP give the same numbers.

Each shipped config is trained for some steps on made-up rows by the commands of its header. The
rows that were not trained on are then predicted by ``tzrec predict CONFIG`` (the checkpoint, as in
`tzrec eval`), by ``tzrec predict EXPORT``, and asked of the server, as JSON and as Arrow.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from example_configs import CONFIGS, stem
from example_runs import generate, learn, matches, small, work_in
from hostile import ARROW, stream_of
from serving_jobs import load_servable, serving

from tzrec.cli import main
from tzrec.config import prepare
from tzrec.deploy.options import Asked
from tzrec.main import export, predict, predict_checkpoint

FEW = ("deepfm_criteo", "dbmtl_taobao", "dssm_taobao", "feed_fg_dag")
ROWS, STEPS, BATCH = 100, 10, 32
SPARSE_RATE = 1.0  # so that the scores soon differ from each other
TOLERANCE = 1e-6


@pytest.fixture(autouse=True, scope="module")
def _work(tmp_path_factory):
    root = tmp_path_factory.mktemp("work")
    work_in(root)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield
    torch.set_num_threads(threads)


def few_or_slow(path):
    return pytest.param(path, id=stem(path), marks=() if path.stem in FEW else pytest.mark.slow)


def train(path, root):
    """Trains for some steps; returns the path of the run's config, and the rows to predict."""
    optimizer = prepare(str(path)).config.train_config.sparse_optimizer.WhichOneof("optimizer")
    faster = {f"train_config.sparse_optimizer.{optimizer}.lr": SPARSE_RATE}
    edits = small(path, steps=STEPS, batch=BATCH, negatives=BATCH, more=faster)
    arguments = generate(path, root, edits, rows=BATCH * STEPS, eval_rows=ROWS)
    config = learn(arguments, edits, root / "run")
    return root / "run" / "pipeline.config", config.eval_input_path


@pytest.mark.parametrize("path", [few_or_slow(path) for path in CONFIGS])
def test_all_ways_give_the_same_numbers(path, tmp_path):
    config, source = train(path, tmp_path)
    export(str(config), str(tmp_path / "export"))
    compare(config, source, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in CONFIGS if path.stem in FEW], ids=stem)
def test_compiled_exports_do_too(path, tmp_path):
    """Of all examples, tests/deploy compares the compiled model with that in Python."""
    config, source = train(path, tmp_path)
    export(str(config), str(tmp_path / "export"), asked=Asked(target="aoti"))
    assert list((tmp_path / "export").rglob("aoti_model.pt2"))
    compare(config, source, tmp_path)


def compare(config, source, root):
    """Compares what the checkpoint, the export and the server say."""
    directory = root / "export"
    parts = [name for name in ("user", "item") if (directory / name).is_dir()]
    is_tree = (directory / "model").is_dir()
    assert bool(parts) == (matches(prepare(str(config)).config) and not is_tree)
    rows = pq.read_table(source).slice(0, ROWS)
    servable = load_servable(directory, "v1")
    with serving(servable) as client:
        for part in parts:
            eager = embedded(config, source, root / f"{part}_eager", part)
            scripted = predicted(source, directory / part, root / f"{part}_scripted")
            assert list(scripted) == [f"{part}_tower_emb"]
            served = asked(client, servable, "/v1/embed", rows, tower=part)
            for found in (*scripted.values(), served["vectors"]):
                assert_same(found, eager)
        if not parts:
            model = directory / "model" if is_tree else directory
            scripted = predicted(source, model, root / "scripted")
            predict_checkpoint(str(config), source, str(root / "eager"))
            eager = read(root / "eager")
            served = asked(client, servable, "/v1/predict", rows)
            assert sorted(eager) == sorted(scripted) == sorted(served)
            for name, values in eager.items():
                assert_same(scripted[name], values)
                assert_same(served[name], values)


def assert_same(found, expected):
    assert found.dtype == expected.dtype == np.float32
    assert found.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max()))
    assert np.ptp(expected) > 1000 * TOLERANCE * scale  # it does not say the same of everybody
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * scale)


def predicted(source, directory, out):
    """Output → values, by an export."""
    predict(source, str(out), str(directory))
    return read(out)


def embedded(config, source, out, tower):
    """Vectors by the tower of a checkpoint."""
    words = ["embed", str(config), "--tower", tower, "--input", source, "--out", str(out)]
    # Any column serves as the id.
    assert main([*words, "--id-field", pq.read_schema(a_file(source)).names[0]]) == 0
    vectors = [values for values in read(out).values() if values.dtype == np.float32]
    assert len(vectors) == 1
    return vectors[0]


def a_file(source):
    return min(Path(source).rglob("*.parquet")) if Path(source).is_dir() else source


def read(directory):
    """Column → array of a directory of predictions."""
    tables = [pq.read_table(path) for path in sorted(directory.glob("*.parquet"))]
    table = pa.concat_tables(tables).slice(0, ROWS)
    return {name: as_array(table[name].combine_chunks()) for name in table.schema.names}


def as_array(column):
    """An Arrow column of numbers, or of lists of as many each."""
    shape = [len(column)]
    while pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
        inner = column.flatten()
        shape.append(len(inner) // max(len(column), 1))
        column = inner
    sizes = [shape[0], *shape[1:]]
    return column.to_numpy(zero_copy_only=False).reshape(sizes)


def asked(client, servable, path, table, *, tower=""):
    """Output → values, by HTTP; JSON and Arrow must give the same bits."""
    signature = servable.signatures[f"embed/{tower}" if tower else "predict"]
    table = table.select([column.name for column in signature.inputs])
    more = {"tower": tower} if tower else {}
    bodies = [{"rows": objects(table)} | more, {"columns": lists(table)} | more]
    answers = [
        client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
        for body in bodies
    ]
    query = f"?tower={tower}" if tower else ""
    headers = {"Content-Type": ARROW, "Accept": ARROW}
    arrow = client.post(path + query, content=stream_of(table), headers=headers)
    for answer in (*answers, arrow):
        assert answer.status_code == 200, answer.text
    columns = pa.ipc.open_stream(arrow.content).read_all()
    found = {name: as_array(columns[name].combine_chunks()) for name in columns.schema.names}
    for answer in answers:
        body = answer.json()
        texts = {"vectors": body["vectors"]} if tower else body["outputs"]
        assert sorted(texts) == sorted(found)
        for name, values in texts.items():
            exact = np.asarray(values)
            assert exact.dtype == np.float64
            # Short decimals that read back as the same float32.
            assert exact.astype(np.float32).tobytes() == found[name].tobytes()
    return found


def lists(table):
    """Columns as JSON has them."""
    return {name: [as_json(v) for v in table[name].to_pylist()] for name in table.schema.names}


def as_json(value):
    """True and false are sent as 1 and 0."""
    if isinstance(value, list):
        is_map = bool(value) and isinstance(value[0], tuple)
        return dict(value) if is_map else [as_json(one) for one in value]
    return int(value) if isinstance(value, bool) else value


def objects(table):
    """Rows as JSON has them."""
    columns = lists(table)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
