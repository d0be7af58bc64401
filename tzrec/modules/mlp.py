"""Multi-layer perceptron (reference 05 section 5.6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.errors import ConfigError
from tzrec.modules.activation import Dice, get_activation
from tzrec.modules.batch_norm import BatchNorm
from tzrec.modules.linear import Linear, RaggedLinear


class Perceptron(nn.Module):
    """One layer: linear, then batch or layer norm, activation, dropout.

    Args:
        in_features: size of the last axis of the input.
        out_features: size of the last axis of the output.
        activation: class path of the activation, ``""`` for none.
        use_bn: batch norm; the linear layer then has no bias, since the norm removes it.
        use_ln: layer norm.
        bias: whether the linear layer has a bias.
        dropout_ratio: 0 for none.
        dim: number of axes of the input, 2 for (B, C) or 3 for (B, T, C).
        ragged: the rows are steps of histories: another number in each batch.
        device: where the parameters live.

    Raises:
        ConfigError: both norms are asked for, ``dim`` is neither 2 nor 3, or the dropout ratio
            is outside [0, 1).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activation: str = "nn.ReLU",
        use_bn: bool = False,
        use_ln: bool = False,
        bias: bool = True,
        dropout_ratio: float = 0.0,
        dim: int = 2,
        ragged: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if use_bn and use_ln:
            raise ConfigError("use_bn and use_ln are both set; a layer has one norm, choose one")
        if dim not in (2, 3):
            raise ConfigError(f"a perceptron works on inputs of 2 or 3 axes, not {dim}")
        if not 0.0 <= dropout_ratio < 1.0:
            raise ConfigError(f"dropout_ratio is {dropout_ratio}, it must be in [0, 1)")
        self._out_features = out_features
        self._dim = dim
        kind = RaggedLinear if ragged else Linear
        layers: list[nn.Module] = [
            kind(in_features, out_features, bias=bias and not use_bn, device=device)
        ]
        if use_bn:
            layers.append(BatchNorm(out_features, device=device))
        if use_ln:
            layers.append(nn.LayerNorm(out_features, device=device))
        # Rows and steps are one axis inside: the norms see (B T, C), and so does Dice.
        active = get_activation(activation, out_features, device=device)
        if active is not None:
            layers.append(active)
        if dropout_ratio > 0.0:
            layers.append(nn.Dropout(dropout_ratio))
        self.perceptron = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, out_features), or (B, T, out_features) in 3-D mode."""
        if self._dim == 2:
            return self.perceptron(x)
        flat = self.perceptron(x.flatten(0, 1))
        return flat.view(x.size(0), x.size(1), self._out_features)


class MLP(nn.Module):
    """A stack of perceptrons.

    Takes the fields of the ``MLP`` message: ``MLP(in_features, **config_to_kwargs(message))``.

    Args:
        in_features: size of the last axis of the input.
        hidden_units: output size of each layer.
        dropout_ratio: empty for none, one value for all layers, or one value per layer.
        activation: class path of the activation of every layer, ``""`` for none.
        use_bn: batch norm in every layer.
        use_ln: layer norm in every layer.
        bias: whether the linear layers have a bias.
        dim: number of axes of the input, 2 for (B, C) or 3 for (B, T, C). In 3-D mode batch
            statistics run over B and T.
        ragged: the rows are steps of histories: another number in each batch.
        return_hidden_layer_feature: the forward returns the output of every layer.
        device: where the parameters live.

    Raises:
        ConfigError: no hidden units, a size below 1, as many dropout ratios as neither one nor
            the number of layers, or what `Perceptron` refuses.
    """

    def __init__(
        self,
        in_features: int,
        hidden_units: Sequence[int],
        *,
        dropout_ratio: Sequence[float] | float | None = None,
        activation: str = "nn.ReLU",
        use_bn: bool = False,
        use_ln: bool = False,
        bias: bool = True,
        dim: int = 2,
        ragged: bool = False,
        return_hidden_layer_feature: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if not hidden_units or min(hidden_units) < 1:
            raise ConfigError(
                f"mlp.hidden_units is {list(hidden_units)}; it needs at least one positive size"
            )
        ratios = _dropout_ratios(dropout_ratio, len(hidden_units))
        self.hidden_units = list(hidden_units)
        self.return_hidden_layer_feature = return_hidden_layer_feature
        sizes = [in_features, *hidden_units]
        self.mlp: Any = nn.ModuleList(
            Perceptron(
                sizes[i],
                sizes[i + 1],
                activation=activation,
                use_bn=use_bn,
                use_ln=use_ln,
                bias=bias,
                dropout_ratio=ratios[i],
                dim=dim,
                ragged=ragged,
                device=device,
            )
            for i in range(len(hidden_units))
        )

    def output_dim(self) -> int:
        """Returns the size of the last layer."""
        return self.hidden_units[-1]

    def uses_batch_statistics(self) -> bool:
        """Returns whether a row's output depends on the other rows while training."""
        return any(isinstance(m, (nn.modules.batchnorm._BatchNorm, Dice)) for m in self.modules())

    def first_linear(self) -> nn.Linear:
        """Returns the linear map of the first layer."""
        linear: nn.Linear = self.mlp[0].perceptron[0]
        return linear

    def after_first_linear(self, x: Tensor) -> Tensor:
        """Returns (B, D) from ``x`` (B, hidden_units[0]), the output of the first linear map."""
        for layer in list(self.mlp[0].perceptron)[1:]:
            x = layer(x)
        for perceptron in list(self.mlp)[1:]:
            x = perceptron(x)
        return x

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        """Runs the layers.

        Args:
            x: (B, in_features), or (B, T, in_features) in 3-D mode.

        Returns:
            (B, D) or (B, T, D), with D the last of ``hidden_units``; with
            ``return_hidden_layer_feature`` a dictionary ``hidden_layer0`` … and
            ``hidden_layer_end`` of the outputs of the layers.
        """
        hidden: dict[str, Tensor] = {}
        for i, layer in enumerate(self.mlp):
            x = layer(x)
            hidden[f"hidden_layer{i}"] = x
        if self.return_hidden_layer_feature:
            hidden["hidden_layer_end"] = x
            return hidden
        return x


def _dropout_ratios(ratios: Sequence[float] | float | None, num_layers: int) -> list[float]:
    values = [ratios] if isinstance(ratios, (int, float)) else list(ratios or [0.0])
    if len(values) == 1:
        return [float(values[0])] * num_layers
    if len(values) != num_layers:
        raise ConfigError(
            f"mlp.dropout_ratio has {len(values)} values for {num_layers} hidden_units; "
            "give none, one, or one per layer"
        )
    return [float(value) for value in values]
