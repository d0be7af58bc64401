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
# The light net is the one that is served. Its AUC may dip in an early pass, while both nets learn:
# the rate waits for one pass more, and so does the end.
_RATES = tuple(f"train_config.{kind}_optimizer.reduce_on_plateau_learning_rate" for kind in
               ("sparse", "dense"))  # fmt: skip
ROCKET_LAUNCHING = (
    *(f"{rate}.metric=auc_light" for rate in _RATES),
    *(f"{rate}.patience=2" for rate in _RATES),
    "train_config.early_stop.metric=auc_light",
    "train_config.early_stop.patience=3",
    "export_config.best_exporter_metric=auc_light",
)


def _model(name: str, title: str) -> Model:
    published = {"auc": PUBLISHED[title]} if title in PUBLISHED else {}
    if name != "rocket_launching":
        return Model(title, published)
    return Model(title, published, ROCKET_LAUNCHING, suffix="_light")


DATASET = DataSet(
    name="frappe",
    folder="frappe",
    metrics={"auc": "AUC"},
    models={name: _model(name, title) for name, title in TITLES.items()},
)

if __name__ == "__main__":
    sys.exit(main(DATASET, ROOT.parent / "shared" / "data" / "frappe", __doc__))
