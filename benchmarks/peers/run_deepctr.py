"""DeepCTR-Torch by its documented interface: feature columns, ``compile``, ``fit``, ``predict``."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
from measure import (
    ATTENTION,
    CROSSES,
    DEEP,
    DIM,
    EXPERTS,
    TOWER,
    Job,
    Meter,
    auc,
    finish,
    job,
    peak_mib,
)
from shapes import LONGEST, SEQUENCE, Shape, load, read


def main() -> None:
    task, meter = job(), Meter()
    shape = load(task.data)
    with meter.phase("start"):
        model = build(task, shape)
    sequences = task.model == "din"
    labels = shape.labels if task.model == "mmoe" else shape.labels[:1]
    with meter.phase("train"):
        x, y = inputs(task, shape, labels, sequences, part="train")
        model.fit(x, y, batch_size=task.batch_size, epochs=1, verbose=0)
    peak = peak_mib()
    rows = len(y)
    x, y = inputs(task, shape, labels, sequences, part="test")
    found = model.predict(x, task.batch_size)
    scores = {name: auc(y[:, i], found[:, i]) for i, name in enumerate(labels)}
    finish(meter, rows, scores, peak, version=version("deepctr-torch"))


def inputs(task: Job, shape: Shape, labels: tuple[str, ...], sequences: bool, *, part: str):
    """Returns the arrays by the names of the feature columns, and the labels (rows, labels)."""
    x = read(task.data / f"{part}.parquet", shape, sequences=sequences)
    y = np.stack([x[name] for name in labels], axis=1)
    # A history has to be named after its table.
    x = {name.replace(f"{SEQUENCE}__", "hist_"): column for name, column in x.items()}
    return {name: column for name, column in x.items() if name not in shape.labels}, y


def build(task: Job, shape: Shape):
    """Returns the compiled model: Adam of .001, no penalty, no dropout."""
    from deepctr_torch.inputs import DenseFeat, SparseFeat, VarLenSparseFeat
    from deepctr_torch.models import DCN, DIN, MMOE, DeepFM

    columns = [SparseFeat(name, size, embedding_dim=DIM) for name, size in shape.ids.items()]
    columns += [DenseFeat(name, 1) for name in shape.floats]
    no_penalty = {"l2_reg_embedding": 0, "device": "cpu"}
    if task.model == "din":
        for name in shape.steps.values():
            ids = SparseFeat(f"hist_{name}", shape.ids[name], DIM, embedding_name=name)
            columns.append(VarLenSparseFeat(ids, LONGEST, length_name="seq_length"))
        model = DIN(
            columns, list(shape.steps.values()), dnn_hidden_units=DEEP, att_hidden_size=ATTENTION,
            att_activation="relu", **no_penalty,
        )  # fmt: skip
        model.compile("adam", "binary_crossentropy")
        return model
    no_penalty["l2_reg_linear"] = 0
    if task.model == "mmoe":
        model = MMOE(
            columns, num_experts=EXPERTS, expert_dnn_hidden_units=DEEP, gate_dnn_hidden_units=(),
            tower_dnn_hidden_units=TOWER, task_names=shape.labels, **no_penalty,
        )  # fmt: skip
        model.compile("adam", ["binary_crossentropy"] * len(shape.labels))
        return model
    if task.model == "deepfm":
        model = DeepFM(columns, columns, dnn_hidden_units=DEEP, **no_penalty)
    else:
        model = DCN(
            columns, columns, cross_num=CROSSES, cross_parameterization="matrix",
            dnn_hidden_units=DEEP, l2_reg_cross=0, **no_penalty,
        )  # fmt: skip
    model.compile("adam", "binary_crossentropy")
    return model


if __name__ == "__main__":
    main()
