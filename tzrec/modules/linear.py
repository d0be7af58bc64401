"""`Linear`: torch's, with the faster gradient of `tzrec.ops.linear` in training."""

# No postponed annotations: the layer is scripted.

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tzrec.ops.linear import linear


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
