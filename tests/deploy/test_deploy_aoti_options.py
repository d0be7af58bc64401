"""Compiled exports with everything else that an export can be asked for."""

import numpy as np
import pytest
import split_jobs
import torch
from deploy_jobs import MODELS, make_rows
from split_jobs import batches, parse, scores

from tzrec.deploy import Predictor
from tzrec.deploy.export import export_artefact
from tzrec.deploy.options import ExportOptions

pytestmark = pytest.mark.slow

USER_COLUMNS = ("user_id", "likes", "age", "click__item_id", "click__price")
CASES = {
    **{f"aoti {name}": (name, {"target": "aoti"}) for name in MODELS},
    **{f"aoti_unified {name}": (name, {"target": "aoti_unified"}) for name in MODELS},
    "narrow": ("MultiTower", {"target": "aoti", "quantisation": "INT8",
                              "sequence_quantisation": "FP16"}),
    "tuned": ("WideAndDeep", {"target": "aoti", "autotune": True}),
    "tiled 2": ("MultiTowerDIN", {"target": "aoti", "input_tile": 2}),
    "tiled 3": ("MultiTower", {"target": "aoti", "input_tile": 3}),
    "tiled 2 unified": ("MultiTowerDIN", {"target": "aoti_unified", "input_tile": 2}),
    "tiled 3 unified": ("MultiTowerDIN", {"target": "aoti_unified", "input_tile": 3}),
}  # fmt: skip


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    made = {}

    def get(name):
        if name not in made:
            root = tmp_path_factory.mktemp(name)
            made[name] = root, *split_jobs.build(root, name)
        return made[name]

    return get


def run_export(job, name, **options):
    root, wrapper, features, config = job
    rows = make_rows(32, seed=3)
    predictor_rows = rows.select([n for n in rows.schema.names if n not in ("row", "label")])
    return export_artefact(
        config=config,
        model=wrapper.model,
        features=features,
        golden=parse(features, rows),
        rows=predictor_rows.to_batches()[0],
        export_dir=root / name,
        options=ExportOptions(**options),
    )


@pytest.mark.parametrize("case", CASES)
def test_compiled(jobs, case):
    name, options = CASES[case]
    job = jobs(name)
    compiled = Predictor.load(run_export(job, case.replace(" ", "_"), **options))
    assert compiled.manifest.target == options["target"]
    plain = options | {"target": "torchscript", "autotune": False}
    expected = Predictor.load(run_export(job, f"{case} plain".replace(" ", "_"), **plain))
    for num_rows, empty in ((200, False), (1, False), (3, True)):
        rows = make_rows(num_rows, seed=num_rows, empty=empty)
        wanted = expected.predict(rows)
        for key, value in compiled.predict(rows).items():
            np.testing.assert_allclose(value, wanted[key], rtol=0, atol=1e-6)
    if options.get("input_tile"):
        rows = make_rows(30, seed=5)
        user = {n: rows[n].slice(0, 1) for n in USER_COLUMNS}
        items = {n: rows[n] for n in rows.schema.names if n not in (*USER_COLUMNS, "row", "label")}
        wanted = expected.predict_request(user, items)
        for key, value in compiled.predict_request(user, items).items():
            assert len(value) == 30
            np.testing.assert_allclose(value, wanted[key], rtol=0, atol=1e-6)


@pytest.mark.parametrize("target", ["aoti", "aoti_unified"])
def test_mixed_precision(jobs, target):
    """bfloat16 has 8 bits: compiled code rounds at other places."""
    job = jobs("WideAndDeep")
    name = f"bf16_{target}"
    path = run_export(job, name, target=target, mixed_precision="BF16", tolerance=0.05)
    predictor = Predictor.load(path, self_check=False)
    _, wrapper, features, _ = job
    for batch in batches(features).values():
        found, wanted = predictor.forward(batch), scores(wrapper, batch)
        gap = (found["probs"].float() - wanted["probs"]).abs().max()
        assert 0 < gap < 0.02 or torch.equal(found["probs"], wanted["probs"])
