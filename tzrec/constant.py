"""Constants of the interface."""

from __future__ import annotations

import enum

PREDICT_QUEUE_TIMEOUT = 600
# Rows dimensions that features live on: the rows of a batch, and with sampled rows after them.
BASE_DATA_GROUP = "__BASE__"
NEG_DATA_GROUP = "__NEG__"
CROSS_NEG_DATA_GROUP = "__CNEG__"
TARGET_REPEAT_INTERLEAVE_KEY = "__TARGET_REPEAT_INTERLEAVE_KEY__"
PIPELINE_CONFIG = "pipeline.config"
TRAIN_EVAL_RESULT_FILENAME = "train_eval_result_v2.txt"
EVAL_RESULT_FILENAME = "eval_result.txt"


class Mode(enum.Enum):
    """What a data loader feeds."""

    TRAIN = 1
    EVAL = 2
    PREDICT = 3
