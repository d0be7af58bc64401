"""When the time of the data says that a checkpoint is due."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.distributed as dist

from tzrec.protos.train_pb2 import TrainConfig

NONE = -1


def reconcile(times: Sequence[float], quorum: float) -> float:
    """Returns the largest time that a share of the ranks has reached.

    Of m ranks that is k = clamp(⌈quorum · m - 1e-9⌉, 1, m), so the result is element m - k of the
    ascending times (reference 01 §1.1.6).

    Args:
        times: newest event time of each rank's last batch, -1 = none.
        quorum: share of the ranks, in (0, 1].
    """
    count = len(times)
    enough = min(max(math.ceil(quorum * count - 1e-9), 1), count)
    return sorted(times)[count - enough]


class EventTimeCadence:
    """Asks for a checkpoint when the data's time passes a multiple of an interval or a target.

    The first time that is known only sets the reference. Within a pass the reference never goes
    back, so rows that come late save nothing twice.

    Args:
        train_config: ``save_checkpoints_timestamp_interval`` (seconds, aligned to 1970),
            ``save_checkpoints_timestamps`` and ``save_checkpoints_timestamp_quorum``.

    Attributes:
        watermark: the time that was reached, -1 = none yet.
    """

    def __init__(self, train_config: TrainConfig) -> None:
        self._interval = train_config.save_checkpoints_timestamp_interval
        self._targets = list(train_config.save_checkpoints_timestamps)
        self._quorum = train_config.save_checkpoints_timestamp_quorum
        self.watermark: float = NONE

    @property
    def is_set(self) -> bool:
        """True when the config asks for checkpoints by event time."""
        return bool(self._interval or self._targets)

    def is_due(self, timestamp: float) -> bool:
        """Returns whether a checkpoint is due after a batch; the same on every rank.

        Args:
            timestamp: newest event time of this rank's batch, -1 = none.
        """
        if not self.is_set:
            return False
        reached, last = reconcile(_of_ranks(timestamp), self._quorum), self.watermark
        if reached < 0 or reached <= last:
            return False
        self.watermark = reached
        if last < 0:
            return False
        by_interval = self._interval and reached // self._interval > last // self._interval
        return bool(by_interval) or any(last < target <= reached for target in self._targets)

    def start_pass(self) -> None:
        """Forgets the time: a new pass begins with the oldest rows again."""
        self.watermark = NONE


def _of_ranks(timestamp: float) -> list[float]:
    times = [timestamp]
    if dist.is_initialized() and dist.get_world_size() > 1:
        times = times * dist.get_world_size()
        dist.all_gather_object(times, timestamp)
    return times
