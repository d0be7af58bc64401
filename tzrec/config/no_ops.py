"""Fields of the schema that are read and change nothing, and why: the table of docs/no_ops.md.

Every other field of ``train_config``, ``data_config`` and ``eval_config`` changes something, or
asks for a part of a later version and is refused; tests/test_knobs.py holds all of them to that.
"""

from __future__ import annotations

from collections.abc import Mapping

_ODPS = "it is for MaxCompute tables, which this version does not read"

# Config path → why it changes nothing.
NO_OPS: Mapping[str, str] = {
    "train_config.grad_clipping.enable_global_grad_clip": (
        "dense gradients are averaged over the processes before they are clipped, so the norm is "
        "always that of the whole batch"
    ),
    "data_config.fg_threads": (
        "only FG_DAG computes features side by side, and results do not depend on it"
    ),
    "data_config.is_orderby_partition": _ODPS,
    "data_config.odps_data_quota_name": _ODPS,
    "data_config.odps_data_compression": _ODPS,
}
