"""A causal transformer over histories of any length (Kang and McAuley, ICDM 2018)."""

# TorchScript needs the annotations themselves, not their text.

from typing import Tuple  # noqa: UP035 (TorchScript)

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tzrec.errors import ConfigError
from tzrec.modules import jagged
from tzrec.modules.linear import RaggedLinear


@torch.fx.wrap
def latest_steps(lengths: Tensor, most: int, latest_first: bool) -> Tuple[Tensor, Tensor, Tensor]:  # noqa: UP006
    """Returns which steps are read, from the oldest to the latest of every row.

    A row without any reads one step that is not there.

    Args:
        lengths: (B,) of the rows, of S steps in all.
        most: steps that a row keeps.
        latest_first: the steps run from the latest back.

    Returns:
        Index (N,) of the steps, S for one that is not there; how far each is from the latest
        (N,); and the steps per row (B,), at least 1.
    """
    lengths = lengths.to(torch.int64)
    ends = torch.cumsum(lengths, 0)
    kept = lengths.clamp(min=1, max=most)
    rows = torch.repeat_interleave(kept)
    last = torch.cumsum(kept, 0)[rows] - 1
    age = last - torch.arange(rows.size(0), device=lengths.device)
    index = (ends - lengths)[rows] + age if latest_first else ends[rows] - 1 - age
    index = torch.where(lengths[rows] > 0, index, ends[-1:].expand_as(index))
    return index, age, kept


@torch.fx.wrap
def num_padded(lengths: Tensor) -> int:
    """Returns the largest of ``lengths`` (B,)."""
    return int(lengths.max().item())


class CausalLayer(nn.Module):
    """Pre-norm transformer layer in which a step sees itself and those before it.

    ::

        x = x + dropout(Linear(attention(LayerNorm(x))))
        x = x + dropout(Linear(dropout(ReLU(Linear(LayerNorm(x))))))

    Only the attention itself runs on padded steps. They stand behind those that exist, which
    therefore never look at them: no mask is needed. Attention weights have no dropout: they would
    be a matrix of T by T in memory, for twice the time of the attention.

    Args:
        dim: D, size of a step.
        num_heads: divides D.
        ffn_dim: hidden units of the second part.
        dropout: of all dropouts.
    """

    def __init__(self, dim: int, *, num_heads: int, ffn_dim: int, dropout: float) -> None:
        super().__init__()
        self._heads = (3, num_heads, dim // num_heads)
        self.norm1 = nn.LayerNorm(dim)
        self.in_proj = RaggedLinear(dim, 3 * dim)
        self.out_proj = RaggedLinear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.linear1 = RaggedLinear(dim, ffn_dim)
        self.linear2 = RaggedLinear(ffn_dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, steps: Tensor, lengths: Tensor, num_steps: int) -> Tensor:
        """Returns (N, D).

        Args:
            steps: (N, D), the steps of all rows, oldest first.
            lengths: (B,), at least 1 each.
            num_steps: T, the largest of them.
        """
        # (3, B, H, T, D / H)
        padded = jagged.pad(self.in_proj(self.norm1(steps)), lengths, num_steps)
        heads = padded.unflatten(2, self._heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(heads[0], heads[1], heads[2], is_causal=True)
        attended = jagged.unpad(attended.transpose(1, 2).flatten(2), lengths)
        steps = steps + self.dropout(self.out_proj(attended))
        hidden = self.dropout(torch.relu(self.linear1(self.norm2(steps))))
        return steps + self.dropout(self.linear2(hidden))


class CausalTransformer(nn.Module):
    """States of histories: what is known of a user after each step.

    ::

        x_t = dropout(sqrt(D) e_t + p_t)          p: learnt, by the number of steps after t
        h   = LayerNorm(layer_L(... layer_1(x)))

    "Self-attentive sequential recommendation" (Kang and McAuley, ICDM 2018), with the norm before
    each part and without dropout of the attention weights. Positions count from the latest step
    back, as if histories were padded on the left. A row without history has one state, that of an
    embedding of zeros: what is known of users that nothing is known of.

    Args:
        dim: D, size of a step.
        max_seq_len: the latest steps that are read.
        num_layers: L.
        num_heads: divides D.
        ffn_dim: hidden units of the feed-forward part, 0 = D.
        dropout: of all dropouts.
        latest_first: the steps of a history run from the latest back.

    Raises:
        ConfigError: the heads do not divide D.
    """

    def __init__(
        self,
        dim: int,
        *,
        max_seq_len: int,
        num_layers: int = 2,
        num_heads: int = 1,
        ffn_dim: int = 0,
        dropout: float = 0.2,
        latest_first: bool = False,
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ConfigError(f"num_heads is {num_heads}, it must divide the size of a step, {dim}")
        self._max_seq_len = max_seq_len
        self._latest_first = latest_first
        self._scale = float(dim) ** 0.5
        self.positions = nn.Parameter(torch.randn(max_seq_len, dim) * 0.02)
        self.dropout = nn.Dropout(dropout)
        self.layers: nn.ModuleList = nn.ModuleList(
            CausalLayer(dim, num_heads=num_heads, ffn_dim=ffn_dim or dim, dropout=dropout)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim)

    def latest(self, steps: Tensor, lengths: Tensor) -> Tuple[Tensor, Tensor, Tensor]:  # noqa: UP006
        """Returns the steps that are read, oldest first, their ages, and how many each row has.

        Args:
            steps: (S, D), those of all rows.
            lengths: (B,).

        Returns:
            (N, D), (N,) and (B,), at least 1: a row without steps has one of zeros.
        """
        index, age, kept = latest_steps(lengths, self._max_seq_len, self._latest_first)
        return F.pad(steps, (0, 0, 0, 1)).index_select(0, index), age, kept

    def forward(self, steps: Tensor, age: Tensor, lengths: Tensor) -> Tensor:
        """Returns the states (N, D); arguments as `latest` returns them."""
        x = self.dropout(steps * self._scale + self.positions.index_select(0, age))
        num_steps = num_padded(lengths)
        for layer in self.layers:
            x = layer(x, lengths, num_steps)
        return self.norm(x)
