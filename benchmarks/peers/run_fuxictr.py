"""FuxiCTR by its documented interface: feature map, npz data, ``BaseModel``.

Its wheel brings layers but not the model zoo, so the models are put together here of its layers,
as its README tells users to do. Data are turned into its npz form first (phase ``prepare``).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from importlib.metadata import version
from pathlib import Path

import numpy as np
from measure import (
    ATTENTION,
    BOTTOM,
    CROSSES,
    DEEP,
    DIM,
    EXPERTS,
    RATE,
    TOP,
    TOWER,
    Job,
    Meter,
    auc,
    cpu_seconds,
    finish,
    job,
    peak_mib,
)
from shapes import LONGEST, Shape, load, read


def main() -> None:
    task, meter = job(), Meter()
    shape = load(task.data)
    labels = shape.labels if task.model == "mmoe" else shape.labels[:1]
    # Its checkpoints go below a folder of the set's name, which it expects to be there.
    (task.scratch / task.data.name).mkdir(parents=True, exist_ok=True)
    with meter.phase("prepare"):
        files = {part: prepare(task, shape, labels, part) for part in ("train", "test", "valid")}
    with meter.phase("start"):
        features = feature_map(task, shape, labels)
        model = build(task, shape, features)
    with meter.phase("train"):
        parts = {"train_data": str(files["train"]), "valid_data": str(files["valid"])}
        loader, valid = loaders(task, features, "train", **parts)
        aside = without_evaluation(model)
        model.fit(loader, epochs=1, validation_data=valid)
    meter.add("train", *aside)
    peak = peak_mib()
    tests = loaders(task, features, "test", test_data=str(files["test"]))
    found = predict(model, tests, labels)
    truth = read(task.data / "test.parquet", shape)
    scores = {name: auc(truth[name], found[name]) for name in labels}
    rows = len(read(task.data / "train.parquet", shape)[labels[0]])
    finish(meter, rows, scores, peak, version=version("fuxictr"))


def without_evaluation(model) -> list[float]:
    """Returns the wall and CPU seconds, negative, that `fit` will spend on its validation.

    It validates at the end of a pass, whether it is asked to or not.
    """
    aside = [0.0, 0.0]

    def clocked(evaluation) -> None:
        wall, cpu = time.perf_counter(), cpu_seconds()
        evaluation()
        aside[0] -= time.perf_counter() - wall
        aside[1] -= cpu_seconds() - cpu

    model.meter_evaluation = clocked
    return aside


def prepare(task: Job, shape: Shape, labels: tuple[str, ...], part: str) -> Path:
    """Writes the columns of a part as npz; `valid` is one batch of the train part."""
    source = task.data / f"{'train' if part == 'valid' else part}.parquet"
    arrays = read(source, shape, sequences=task.model == "din")
    if part == "valid":
        arrays = {name: column[: task.batch_size] for name, column in arrays.items()}
    names = [*shape.floats, *shape.ids, *labels, *(shape.steps if task.model == "din" else ())]
    path = task.scratch / f"{part}.npz"
    np.savez(path, **{name: arrays[name] for name in names})
    return path


def feature_map(task: Job, shape: Shape, labels: tuple[str, ...]):
    """Returns the description of the columns."""
    from fuxictr.features import FeatureMap

    found = FeatureMap(task.data.name, str(task.scratch))
    specs = {name: {"source": "", "type": "numeric"} for name in shape.floats}
    for name, size in shape.ids.items():
        specs[name] = {"source": "", "type": "categorical", "vocab_size": size}
    for name, of in shape.steps.items() if task.model == "din" else ():
        specs[name] = {
            "source": "", "type": "sequence", "max_len": LONGEST, "padding_idx": 0,
            "vocab_size": shape.ids[of], "share_embedding": of, "feature_encoder": None,
        }  # fmt: skip
        specs[of]["padding_idx"] = 0
    found.features = OrderedDict(specs)
    found.labels = list(labels)
    found.num_fields = found.get_num_fields()
    found.set_column_index()
    return found


def loaders(task: Job, features, stage: str, **files: str):
    """Returns the loaders of a stage."""
    from fuxictr.pytorch.dataloaders import RankDataLoader

    options = {"batch_size": task.batch_size, "data_format": "npz", "num_workers": 1}
    return RankDataLoader(features, stage=stage, shuffle=stage == "train", **options, **files)


def predict(model, loader, labels: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Returns the probabilities by label."""
    import torch

    model.eval()
    found: dict[str, list[np.ndarray]] = {name: [] for name in labels}
    with torch.no_grad():
        for batch in loader:
            outputs = model.forward(batch)
            for name in labels:
                key = f"{name}_pred" if len(labels) > 1 else "y_pred"
                found[name].append(outputs[key].numpy().ravel())
    return {name: np.concatenate(parts) for name, parts in found.items()}


def build(task: Job, shape: Shape, features):
    """Returns the model: Adam of .001, no penalty, no dropout."""
    import fuxictr_models

    options = {
        "model_id": task.model, "gpu": -1, "embedding_regularizer": None, "net_regularizer": None,
        "verbose": 0, "model_root": str(task.scratch), "metrics": ["AUC"], "feature_map": features,
    }  # fmt: skip
    if task.model == "mmoe":
        options |= {"task": ["binary_classification"] * len(shape.labels)}
        sizes = {"experts": EXPERTS, "deep": DEEP, "tower": TOWER}
        return fuxictr_models.MMoE(dim=DIM, rate=RATE, sizes=sizes, **options)
    if task.model == "din":
        sizes = {"deep": DEEP, "attention": ATTENTION, "steps": dict(shape.steps)}
        return fuxictr_models.DIN(dim=DIM, rate=RATE, sizes=sizes, **options)
    if task.model == "dlrm":
        columns = {"numbers": list(shape.floats), "ids": list(shape.ids)}
        sizes = {"bottom": BOTTOM, "top": TOP} | columns
        return fuxictr_models.DLRM(dim=DIM, rate=RATE, sizes=sizes, **options)
    sizes = {"deep": DEEP, "crosses": CROSSES}
    kind = fuxictr_models.DeepFM if task.model == "deepfm" else fuxictr_models.DCNv2
    return kind(dim=DIM, rate=RATE, sizes=sizes, **options)


if __name__ == "__main__":
    main()
