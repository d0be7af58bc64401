"""Data groups: the rows that a feature lives on, and the masks of those rows.

The names of the groups are those of `tzrec.batch`, which is on the same layer.
"""

from __future__ import annotations

BASE_DATA_GROUP = "__BASE__"
NEG_DATA_GROUP = "__NEG__"
CROSS_NEG_DATA_GROUP = "__CNEG__"

SAMPLE_MASK = "__SAMPLE_MASK__"
NEG_SAMPLE_MASK = "__NEG_SAMPLE_MASK__"
