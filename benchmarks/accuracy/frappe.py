"""CTR models on Frappe with the protocol of BARS (Frappe_x1): test AUC beside what is published.

    python benchmarks/accuracy/frappe.py --models all --seeds 3
    python benchmarks/accuracy/frappe.py --models dnn --try train_config.embedding_l2=.05,.1

A run that is finished is not run again. With ``--try`` only the valid part is looked at.
"""

from __future__ import annotations

import sys

from command import ROOT, main
from runs import DataSet, Model

# Mean ± sd of 5 runs where BARS gives them, otherwise its best tuned run.
PUBLISHED = {
    "DNN": ".98405 ± .00051",
    "Wide&Deep": ".98307 ± .00079",
    "DeepFM": ".98395 ± .00016",
    "DCN": ".98342 ± .00031",
    "DCN-V2": ".98382 ± .00043",
    "xDeepFM": ".98414 ± .00037",
    "DLRM": ".9840 (best run)",
    "MaskNet": ".9837 (best run)",
    "AutoInt+": ".9848 (best run)",
    "FinalMLP": ".9861 (best run)",
}
TITLES = {
    "dnn": "DNN",
    "wide_and_deep": "Wide&Deep",
    "deepfm": "DeepFM",
    "dcn_v1": "DCN",
    "dcn_v2": "DCN-V2",
    "xdeepfm": "xDeepFM",
    "dlrm": "DLRM",
    "mask_net": "MaskNet",
    "wukong": "WuKong",
    "autoint": "AutoInt+",
    "gdcn": "GDCN",
    "final_mlp": "FinalMLP",
    "rocket_launching": "RocketLaunching",
}
# Fields of the protocol that name the metric which steers the training.
STEERED_BY = (
    "train_config.sparse_optimizer.reduce_on_plateau_learning_rate.metric",
    "train_config.dense_optimizer.reduce_on_plateau_learning_rate.metric",
    "train_config.early_stop.metric",
    "export_config.best_exporter_metric",
)


def _model(name: str, title: str) -> Model:
    published = {"auc": PUBLISHED[title]} if title in PUBLISHED else {}
    if name != "rocket_launching":
        return Model(title, published)
    # The light net is the one that is served.
    edits = tuple(f"{path}=auc_light" for path in STEERED_BY)
    return Model(title, published, edits, suffix="_light")


DATASET = DataSet(
    name="frappe",
    folder="frappe",
    metrics={"auc": "AUC"},
    models={name: _model(name, title) for name, title in TITLES.items()},
)

if __name__ == "__main__":
    sys.exit(main(DATASET, ROOT.parent / "shared" / "data" / "frappe", __doc__))
