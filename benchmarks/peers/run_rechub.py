"""torch-rechub by its documented interface: features, ``DataGenerator``, trainers."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
from measure import (
    ATTENTION,
    CROSSES,
    DEEP,
    DIM,
    EXPERTS,
    RATE,
    TOWER,
    Job,
    Meter,
    auc,
    finish,
    job,
    peak_mib,
)
from shapes import Shape, load, read


def main() -> None:
    task, meter = job(), Meter()
    shape = load(task.data)
    with meter.phase("start"):
        trainer = build(task, shape)
    labels = shape.labels if task.model == "mmoe" else shape.labels[:1]
    with meter.phase("train"):
        loader, y = inputs(task, shape, labels, part="train")
        trainer.train_one_epoch(loader)
    peak = peak_mib()
    rows = len(y)
    loader, y = inputs(task, shape, labels, part="test")
    found, y = predict(trainer.model, loader), y.reshape(len(y), len(labels))
    scores = {name: auc(y[:, i], found[:, i]) for i, name in enumerate(labels)}
    finish(meter, rows, scores, peak, version=version("torch-rechub"))


def predict(model, loader) -> np.ndarray:
    """Returns the model's outputs (rows, labels)."""
    import torch

    model.eval()
    with torch.no_grad():
        found = [model(x).numpy() for x, _ in loader]
    return np.concatenate([part.reshape(len(part), -1) for part in found])


def inputs(task: Job, shape: Shape, labels: tuple[str, ...], *, part: str):
    """Returns the data loader of a part, and its labels."""
    from torch.utils.data import DataLoader
    from torch_rechub.utils.data import DataGenerator

    x = read(task.data / f"{part}.parquet", shape, sequences=task.model == "din")
    y = np.stack([x[name] for name in labels], axis=1) if len(labels) > 1 else x[labels[0]]
    x = {n: column for n, column in x.items() if n not in (*shape.labels, "seq_length")}
    generator = DataGenerator(x, y)
    if part == "train":
        return generator.generate_dataloader(batch_size=task.batch_size)[0], y
    # The generator shuffles: its data set in order is what predictions are compared with.
    dataset = generator.generate_dataloader(batch_size=task.batch_size)[0].dataset
    return DataLoader(dataset, batch_size=task.batch_size, shuffle=False), y


def build(task: Job, shape: Shape):
    """Returns the trainer of a new model: Adam of .001, no penalty, no dropout."""
    from torch_rechub.basic.features import DenseFeature, SequenceFeature, SparseFeature
    from torch_rechub.models.multi_task import MMOE
    from torch_rechub.models.ranking import DIN, DCNv2, DeepFM
    from torch_rechub.trainers import CTRTrainer, MTLTrainer

    sparse = [SparseFeature(name, size, DIM) for name, size in shape.ids.items()]
    dense = [DenseFeature(name) for name in shape.floats]
    deep = {"dims": list(DEEP), "activation": "relu"}
    options = {
        "optimizer_params": {"lr": RATE}, "n_epoch": 1, "model_path": str(task.scratch)
    }  # fmt: skip
    if task.model == "mmoe":
        tower = {"dims": list(TOWER), "activation": "relu"}
        tasks = ["classification"] * len(shape.labels)
        model = MMOE([*dense, *sparse], tasks, EXPERTS, deep, [tower] * len(tasks))
        return MTLTrainer(model, tasks, **options)
    if task.model == "din":
        history = [
            SequenceFeature(name, shape.ids[of], DIM, pooling="concat", shared_with=of)
            for name, of in shape.steps.items()
        ]
        target = [f for f in sparse if f.name in shape.steps.values()]
        attention = {"dims": list(ATTENTION), "activation": "relu"}
        features = [f for f in sparse if f not in target]
        # Its MLP is Dice's, whatever is asked for.
        model = DIN(features, history, target, {"dims": list(DEEP)}, attention)
    elif task.model == "dcn_v2":
        model = DCNv2([*dense, *sparse], CROSSES, deep, use_low_rank_mixture=False)
    else:
        model = DeepFM([*dense, *sparse], sparse, deep)
    return CTRTrainer(model, **options)


if __name__ == "__main__":
    main()
