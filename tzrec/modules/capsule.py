"""Behaviour-to-interest capsules by dynamic routing (Li et al., CIKM 2019)."""

# TorchScript needs the annotations themselves, not their text.

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tzrec.errors import ConfigError
from tzrec.modules import jagged

_INIT_METHODS = ("normal", "zeros")
# Seed of the routing logits that inference starts from.
_SEED = 0
_TINY = 1e-7


@torch.fx.wrap
def first_logits(table: Tensor, steps: Tensor, stddev: float, is_random: bool) -> Tensor:
    """Returns the routing logits (B, T, K) that the iterations start from.

    Args:
        table: (most steps, K), those of inference, the same for every row.
        steps: (B, T, D).
        stddev: of random ones.
        is_random: draw them.
    """
    if not is_random:
        return table[: steps.size(1)].unsqueeze(0).expand(steps.size(0), -1, -1)
    shape = [steps.size(0), steps.size(1), table.size(1)]
    return torch.randn(shape, dtype=table.dtype, device=table.device) * stddev


@torch.fx.wrap
def numbers_of_capsules(lengths: Tensor, max_k: int) -> Tensor:
    """Returns ``ceil(log2 n)`` (B,) of ``lengths`` (B,), within 1 and ``max_k``."""
    # It is the number of powers 2^0, 2^1, ... below n.
    powers = 2 ** torch.arange(max_k, device=lengths.device)
    return (lengths.unsqueeze(1) > powers.unsqueeze(0)).sum(dim=1).clamp(min=1)


@torch.fx.wrap
def beyond(numbers: Tensor, max_k: int) -> Tensor:
    """Returns (B, K) bool, True on the capsules that a row does not have."""
    return torch.arange(max_k, device=numbers.device).unsqueeze(0) >= numbers.unsqueeze(1)


class CapsuleLayer(nn.Module):
    """A history as K interest capsules.

    ::

        h_t    = x_t W                                        W: (input_dim, high_dim)
        c_t    = softmax_k(scale b_t)                         b: random, not learnt
        v_k    = sum_t c_tk h_t
        b_tk   = c_tk + <v_k, h_t / |h_t|>                    before the next iteration
        caps_k = v_k / |v_k| (|v_k|^2 / (1 + |v_k|^2))^squash_pow

    "Multi-interest network with dynamic routing for recommendation at Tmall" (Li et al., CIKM
    2019): B2I routing with one map W for all pairs; gradients flow through the last iteration
    only. A row with n steps has ``ceil(log2 n)`` capsules, at least 1 and at most ``max_k``; the
    others are 0.

    Random logits make the capsules differ. Training draws them for every row; evaluation and
    inference start from one fixed draw, so that a row always gives the same interests.

    Args:
        input_dim: D of a step.
        max_k: K.
        max_seq_len: the first n steps are read.
        high_dim: size of a capsule.
        num_iters: iterations.
        routing_logits_scale: scale.
        routing_logits_stddev: standard deviation of the random logits.
        squash_pow: power of the squash.
        const_caps_num: all rows have ``max_k`` capsules.
        routing_init_method: ``normal`` or ``zeros``, with which all capsules are alike.

    Raises:
        ConfigError: another routing_init_method.
    """

    routing_logits: Tensor

    def __init__(
        self,
        input_dim: int,
        *,
        max_k: int,
        max_seq_len: int,
        high_dim: int,
        num_iters: int = 3,
        routing_logits_scale: float = 20.0,
        routing_logits_stddev: float = 1.0,
        squash_pow: float = 1.0,
        const_caps_num: bool = False,
        routing_init_method: str = "normal",
    ) -> None:
        super().__init__()
        if routing_init_method not in _INIT_METHODS:
            raise ConfigError(
                f"capsule_config.routing_init_method is {routing_init_method!r}, "
                f"it must be {' or '.join(_INIT_METHODS)}"
            )
        self._max_k = max_k
        self._max_seq_len = max_seq_len
        self._num_iters = num_iters
        self._scale = routing_logits_scale
        self._stddev = routing_logits_stddev
        self._squash_pow = squash_pow
        self._const_caps_num = const_caps_num
        self._is_random = routing_init_method == "normal"
        self.bilinear_matrix = nn.Parameter(torch.randn(input_dim, high_dim))
        # On the CPU, whatever the default: nothing makes them anew where a model has no values yet.
        logits = torch.zeros(max_seq_len, max_k, device="cpu")
        if self._is_random:
            generator = torch.Generator().manual_seed(_SEED)
            logits.normal_(std=routing_logits_stddev, generator=generator)
        self.register_buffer("routing_logits", logits, persistent=False)

    def output_dim(self) -> int:
        """Returns the size of a capsule."""
        return self.bilinear_matrix.size(1)

    def num_capsules(self, lengths: Tensor) -> Tensor:
        """Returns how many capsules each row has (B,), for ``lengths`` (B,) of histories."""
        if self._const_caps_num:
            return torch.full_like(lengths, self._max_k, dtype=torch.int64)
        return numbers_of_capsules(lengths.clamp(max=self._max_seq_len), self._max_k)

    def forward(self, steps: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the capsules (B, K, high_dim), float32, and how many each row has (B,).

        Args:
            steps: (B, T, D).
            lengths: (B,).
        """
        steps = steps[:, : self._max_seq_len]
        num_capsules = self.num_capsules(lengths)
        exists = jagged.mask(steps, lengths).unsqueeze(2)
        high = torch.matmul(steps, self.bilinear_matrix).float() * exists
        fixed = high.detach()
        direction = F.normalize(fixed, dim=2)
        logits = first_logits(
            self.routing_logits, steps, self._stddev, self._is_random and self.training
        )
        absent = beyond(num_capsules, self._max_k).unsqueeze(1)
        capsules = torch.zeros_like(high[:, :1])
        for iteration in range(self._num_iters):
            last = iteration == self._num_iters - 1
            weights = torch.softmax((self._scale * logits).masked_fill(absent, -torch.inf), dim=2)
            weights = weights * exists
            capsules = torch.matmul(weights.transpose(1, 2), high if last else fixed)
            if not last:
                logits = weights + torch.matmul(direction, capsules.transpose(1, 2))
        capsules = self._squash(capsules)
        return capsules.masked_fill(absent.transpose(1, 2), 0.0), num_capsules

    def _squash(self, capsules: Tensor) -> Tensor:
        square = capsules.square().sum(dim=2, keepdim=True).clamp(min=_TINY**2)
        return capsules / square.sqrt() * (square / (1.0 + square)) ** self._squash_pow
