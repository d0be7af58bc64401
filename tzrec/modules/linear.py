"""`Linear` and `RaggedLinear`: torch's, with the products of `tzrec.ops.linear`."""

# No postponed annotations: the layer is scripted.

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tzrec.ops.linear import linear, ragged_linear


class Linear(nn.Linear):
    """``x W^T + b`` with the arguments, parameters and results of ``torch.nn.Linear``."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns (..., out_features) of ``x`` (..., in_features)."""
        if torch.jit.is_scripting():
            return F.linear(x, self.weight, self.bias)
        else:  # noqa: RET505 (TorchScript compiles one branch only)
            # While a graph is traced there are no values.
            if self.training and isinstance(x, Tensor):
                return linear(x, self.weight, self.bias)
            return F.linear(x, self.weight, self.bias)


class RaggedLinear(nn.Linear):
    """`torch.nn.Linear` for rows whose number is another in each batch: steps of histories."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, out_features) of ``x`` (N, in_features)."""
        if torch.jit.is_scripting():
            return F.linear(x, self.weight, self.bias)
        else:  # noqa: RET505 (TorchScript compiles one branch only)
            return ragged_linear(x, self.weight, self.bias)
