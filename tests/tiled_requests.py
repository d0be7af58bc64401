"""Several tiled requests as one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor


def merged(requests: Sequence[Mapping[str, Tensor]], users: Collection[str]) -> dict[str, Tensor]:
    """Returns parse keys of all requests, with the candidates of each user.

    Args:
        requests: parse keys of one model, with a number as ``batch_size``.
        users: names of the features of the user.
    """
    keys = [key for key in requests[0] if key != "batch_size"]
    rows = next((k for k in keys if k.endswith(".lengths") and k[: -len(".lengths")] in users), "")
    counts = [int(request["batch_size"]) for request in requests for _ in range(len(request[rows]))]
    parsed = {key: torch.cat([request[key] for request in requests]) for key in keys}
    return {**parsed, "batch_size": torch.tensor(counts)}
