"""Rows counted by score: bounded memory, sums over ranks, and close to the rows themselves.

Bins are evenly spaced in the logit of the score, since scores of rare clicks crowd near 0. Each
also knows the sums of its scores and labels, so means over bins are exact.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Within a bin odds differ by 0.2 %.
NUM_BINS = 16384
LOGIT_LIMIT = 16.0
# What is summed in a bin: rows of either label, scores, labels.
FIELDS = ("negative", "positive", "scores", "labels")


@dataclasses.dataclass(frozen=True)
class ScoreBins:
    """Rows of a binary question by score, bins ascending; empty bins are left out.

    Attributes:
        negative: (N,) rows with a label up to 0.5.
        positive: (N,) rows with a label above.
        scores: (N,) sum of the scores.
        labels: (N,) sum of the labels.
    """

    negative: Floats
    positive: Floats
    scores: Floats
    labels: Floats

    @classmethod
    def of_sums(cls, sums: Floats) -> ScoreBins:
        """Returns the bins of sums (4, T), in the order of `FIELDS`."""
        filled = (sums[0] + sums[1]) > 0
        return cls(*(row[filled] for row in np.asarray(sums, np.float64)))

    @property
    def rows(self) -> Floats:
        """(N,) rows of each bin."""
        return self.negative + self.positive

    @property
    def num_rows(self) -> int:
        """Rows of all bins."""
        return round(float(self.rows.sum()))

    @property
    def score(self) -> Floats:
        """(N,) mean score of each bin."""
        return self.scores / self.rows


@dataclasses.dataclass(frozen=True)
class BinaryScores:
    """Scores of one yes-or-no question.

    Attributes:
        question: what is asked, "" when the task says it ("class 3").
        bins: the rows.
    """

    question: str
    bins: ScoreBins


@dataclasses.dataclass(frozen=True)
class ClassScores:
    """Scores of several classes.

    Attributes:
        questions: each class against the others; with many classes only whether the most probable
            one is right.
        confusion: (C, C) rows by true and most probable class; None with many classes.
    """

    questions: tuple[BinaryScores, ...]
    confusion: Floats | None


@dataclasses.dataclass(frozen=True)
class NumberScores:
    """Predicted numbers.

    Attributes:
        predicted: (S,) predictions of a random sample of the rows.
        actual: (S,) their labels.
        num_rows: of all.
        sums: of all rows, see `NUMBER_SUMS`.
    """

    predicted: Floats
    actual: Floats
    num_rows: int
    sums: dict[str, float]


# Sums over rows with prediction y, label l and error e = y - l.
NUMBER_SUMS = ("y", "l", "yy", "ll", "yl", "|e|")

Scores = BinaryScores | ClassScores | NumberScores


@dataclasses.dataclass(frozen=True)
class TaskScores:
    """What a task predicted in an evaluation.

    Attributes:
        name: of the task, "" for a model's only one.
        label: its column.
        scores: the rows.
    """

    name: str
    label: str
    scores: Scores
