"""Multi-task models on Census-Income (UCI): income and marital status, learnt together.

    python benchmarks/accuracy/census_income.py --models all --seeds 3
    python benchmarks/accuracy/census_income.py --models mmoe --try data_config.batch_size=256,1024

A run that is finished is not run again. With ``--try`` only the valid part is looked at.
"""

from __future__ import annotations

import sys

from command import ROOT, main
from runs import DataSet, Model

# PaddleRec's table: mean, the best in brackets.
PADDLE_MMOE = {"auc_income": ".94465 (.94937)", "auc_marital": ".99324 (.99419)"}

DATASET = DataSet(
    name="census_income",
    folder="census_income",
    metrics={"auc_income": "income AUC", "auc_marital": "marital AUC"},
    models={
        "simple_multi_task": Model("SimpleMultiTask"),
        "mmoe": Model("MMoE", PADDLE_MMOE),
        "ple": Model("PLE"),
        "dbmtl": Model("DBMTL"),
        "dc2vr": Model("DC2VR"),
        "pepnet": Model("PEPNet"),
        "stem": Model("STEM"),
        # Its second task is asked of the rows where the first one is 1.
        "esmm": Model("ESMM (marital status of those above 50k)"),
    },
)

if __name__ == "__main__":
    sys.exit(main(DATASET, ROOT.parent / "shared" / "data" / "census_income", __doc__))
