"""Constants of the interface."""

from __future__ import annotations

import enum

PREDICT_QUEUE_TIMEOUT = 600
TARGET_REPEAT_INTERLEAVE_KEY = "__TARGET_REPEAT_INTERLEAVE_KEY__"
TRAIN_EVAL_RESULT_FILENAME = "train_eval_result_v2.txt"
EVAL_RESULT_FILENAME = "eval_result.txt"


class Mode(enum.Enum):
    """What a data loader feeds."""

    TRAIN = 1
    EVAL = 2
    PREDICT = 3
