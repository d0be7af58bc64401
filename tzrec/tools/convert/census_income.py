"""Census-Income (KDD): two tasks, income and marital status, on categories and numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tzrec.errors import DataError
from tzrec.tools.convert.columns import (
    Converted,
    Feature,
    Id,
    Number,
    encode_words,
    read_columns,
    scale_numbers,
    wide_and_deep_groups,
)

FILES = ("train.parquet", "test.parquet")

_NUMBERS = [
    "age",
    "wage_per_hour",
    "capital_gains",
    "capital_losses",
    "stock_dividends",
    "num_emp",
    "weeks_worked",
]
_CATEGORIES = [
    "class_worker",
    "det_ind_code",
    "det_occ_code",
    "education",
    "hs_college",
    "major_ind_code",
    "major_occ_code",
    "race",
    "hisp_origin",
    "sex",
    "union_member",
    "unemp_reason",
    "full_or_part_emp",
    "tax_filer_stat",
    "region_prev_res",
    "state_prev_res",
    "det_hh_fam_stat",
    "det_hh_summ",
    "mig_chg_msa",
    "mig_chg_reg",
    "mig_move_reg",
    "mig_same",
    "mig_prev_sunbelt",
    "fam_under_18",
    "country_father",
    "country_mother",
    "country_self",
    "citizenship",
    "own_or_self",
    "vet_question",
    "vet_benefits",
    "year",
]
# Label -> its column and the value that counts as 1; spaces at the ends do not matter.
_LABELS = {"income": ("income_50k", "50000+."), "marital": ("marital_stat", "Never married")}
_SPLIT_SEED = 2020

MODEL = """
train_config {
  sparse_optimizer {
    adagrad_optimizer { lr: 0.02 }
    constant_learning_rate {}
  }
  dense_optimizer {
    adam_optimizer { lr: 0.001 }
    constant_learning_rate {}
  }
  num_epochs: 3
  save_checkpoints_epochs: 1
}
data_config {
  batch_size: 1024
  dataset_type: ParquetDataset
  fg_mode: FG_NONE
  # The other label is "marital".
  label_fields: "income"
  num_workers: 1
  shuffle: true
}
model_config {
  FEATURE_GROUPS
  wide_and_deep {
    deep { hidden_units: [128, 64] dropout_ratio: 0.1 }
  }
  losses { binary_cross_entropy {} }
  metrics { auc { thresholds: 2000 } }
}
"""


def convert(source: Path) -> Converted:
    """Numbers the categories by the train part and cuts the test part 1:1 into valid and test.

    Args:
        source: directory with `FILES`.

    Raises:
        DataError: a file or column is missing, or a label is never 1.
    """
    label_columns = [column for column, _ in _LABELS.values()]
    names = [*_NUMBERS, *_CATEGORIES, *label_columns]
    train, test = (read_columns(source / path, names) for path in FILES)
    columns: list[dict[str, np.ndarray]] = [{}, {}]
    for label, (column, positive) in _LABELS.items():
        for table, out in zip((train, test), columns, strict=True):
            text = pc.utf8_trim_whitespace(table[column])
            out[label] = pc.equal(text, positive).to_numpy().astype(np.float32)
        if not columns[0][label].any():
            raise DataError(f"{source}: no row has {column} = {positive!r}, so {label} is never 1")
    features: list[Feature] = []
    for name in _NUMBERS:
        features.append(Number(name, "user"))
        columns[0][name], columns[1][name] = scale_numbers(train[name], test[name])
    for name in _CATEGORIES:
        (columns[0][name], columns[1][name]), size = encode_words(train[name], test[name])
        features.append(Id(name, "user", size, dim=8))
    order = np.random.default_rng(_SPLIT_SEED).permutation(test.num_rows)
    held_out = pa.table(columns[1])
    parts = {
        "train": pa.table(columns[0]),
        "valid": held_out.take(np.sort(order[: len(order) // 2])),
        "test": held_out.take(np.sort(order[len(order) // 2 :])),
    }
    groups = wide_and_deep_groups(_CATEGORIES, _NUMBERS + _CATEGORIES)
    model = MODEL.replace("FEATURE_GROUPS", groups.replace("\n", "\n  "))
    return Converted(parts, tuple(features), tuple(_LABELS), model)
