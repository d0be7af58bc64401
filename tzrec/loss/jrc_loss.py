"""Joint ranking and calibration (Sheng et al., KDD 2023, arXiv 2208.06164)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tzrec.errors import ConfigError


class JRCLoss(nn.Module):
    """``alpha * CE + (1 - alpha) * GE``: CE calibrates, GE ranks within a session.

    CE is the cross entropy of the two logits. GE is a softmax over rows: a positive row i
    competes with the negative rows of its session by the logit of class 1, a negative row with
    the positive rows of its session by the logit of class 0. A row without opponents costs 0.

    Takes O(B) time and memory: ``-log softmax`` of row i against its opponents is
    ``softplus(logsumexp(opponents) - logit_i)``, and the logsumexp is one number per session.

    Args:
        alpha: share of the cross entropy.

    Raises:
        ConfigError: ``alpha`` is outside [0, 1].
    """

    def __init__(self, alpha: float = 0.5) -> None:
        super().__init__()
        if not 0.0 <= alpha <= 1.0:
            raise ConfigError(f"jrc_loss.alpha is {alpha}, it must be in [0, 1]")
        self._alpha = alpha

    def forward(self, logits: Tensor, labels: Tensor, sessions: Tensor) -> Tensor:
        """Returns the loss of each row.

        Args:
            logits: (B, 2).
            labels: (B,) int64 of 0 and 1.
            sessions: (B,) int64, equal for rows of one session.

        Returns:
            (B,)
        """
        calibration = F.cross_entropy(logits, labels, reduction="none")
        _, session = torch.unique(sessions, return_inverse=True)
        positive = labels == 1
        by_negatives, some_negatives = _logsumexp_by_session(logits[:, 1], ~positive, session)
        by_positives, some_positives = _logsumexp_by_session(logits[:, 0], positive, session)
        opponents = torch.where(positive, by_negatives, by_positives)
        contested = torch.where(positive, some_negatives, some_positives)
        own = torch.where(positive, logits[:, 1], logits[:, 0])
        ranking = torch.where(contested, F.softplus(opponents - own), 0.0)
        return self._alpha * calibration + (1.0 - self._alpha) * ranking


def _logsumexp_by_session(values: Tensor, member: Tensor, session: Tensor) -> tuple[Tensor, Tensor]:
    """Returns for each row the logsumexp over the members of its session, and if there are any."""
    chosen = values.masked_fill(~member, -torch.inf)
    # There are at most B sessions: no need to wait for their number.
    largest = torch.full_like(chosen, -torch.inf)
    largest = largest.scatter_reduce(0, session, chosen.detach(), "amax")
    largest = largest.masked_fill(largest.isinf(), 0.0)
    total = torch.zeros_like(chosen).index_add(0, session, torch.exp(chosen - largest[session]))
    some = total > 0
    # log(1) where there are none keeps the gradient finite.
    result = torch.log(total.masked_fill(~some, 1.0)) + largest
    return result[session], some[session]
