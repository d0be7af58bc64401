"""Embeddings of dense values: AutoDis and a linear map (reference 04 section 4.6)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tzrec.errors import ConfigError
from tzrec.modules.utils import check_module_name


@dataclasses.dataclass(frozen=True)
class DenseEmbeddingConfig:
    """Settings of a dense-value embedding; features with equal settings are computed together.

    Attributes:
        value_dim: values per row.
        embedding_dim: size of the embedding.
        num_channels: AutoDis meta-embeddings; 0 selects the linear map.
        temperature: softmax temperature of AutoDis.
        keep_prob: weight of AutoDis's skip connection.
    """

    value_dim: int
    embedding_dim: int
    num_channels: int = 0
    temperature: float = 0.1
    keep_prob: float = 0.8

    def __post_init__(self) -> None:
        # A float32 of a config message is not 0.1 but 0.100000001; names show six digits.
        for field in ("temperature", "keep_prob"):
            object.__setattr__(self, field, float(f"{getattr(self, field):.6g}"))

    def group_key(self) -> str:
        """Returns the name of the module that computes features with these settings."""
        if not self.num_channels:
            return f"mlp_{self.value_dim}_{self.embedding_dim}"
        numbers = f"{self.temperature:g}_{self.keep_prob:g}".replace(".", "p")
        return f"autodis_{self.num_channels}_{self.embedding_dim}_{numbers}"


class _Weight(nn.Module):
    """One parameter named ``weight``, normally distributed."""

    def __init__(
        self, shape: tuple[int, ...], std: float, device: torch.device | str | None
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape, device=device))
        nn.init.normal_(self.weight, std=std)


class _DenseEmbedding(nn.Module):
    """Base: the parameters are named per feature and stacked for one batched product."""

    def __init__(self, names: Sequence[str], config: DenseEmbeddingConfig) -> None:
        super().__init__()
        self.names = list(names)
        self.config = config

    def _add(
        self, prefix: str, shape: tuple[int, ...], std: float, device: torch.device | str | None
    ) -> None:
        for name in self.names:
            check_module_name(name, "feature name")
            self.add_module(f"{prefix}_{name}", _Weight(shape, std, device))

    def _stack(self, prefix: str) -> Tensor:
        """Returns (F, ...) the weights of all features."""
        modules: list[Any] = [self.get_submodule(f"{prefix}_{name}") for name in self.names]
        return torch.stack([module.weight for module in modules])


class AutoDis(_DenseEmbedding):
    """Automatic discretisation (arXiv 2012.08986): a soft choice among c meta-embeddings.

    ``h = LeakyReLU(w x)``, ``z = M h + keep_prob h``, ``softmax(z / temperature) E``.

    Args:
        names: the features.
        config: their settings.
        device: where the parameters live.
    """

    def __init__(
        self,
        names: Sequence[str],
        config: DenseEmbeddingConfig,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(names, config)
        c = config.num_channels
        self._add("meta_emb", (c, config.embedding_dim), 1.0, device)
        self._add("proj_w", (1, c), math.sqrt(2.0 / (1 + c)), device)
        self._add("proj_m", (c, c), math.sqrt(1.0 / c), device)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, F, D) of ``x`` (B, F, 1)."""
        h = F.leaky_relu(x * self._stack("proj_w").squeeze(1))
        z = torch.einsum("bfc,fdc->bfd", h, self._stack("proj_m")) + self.config.keep_prob * h
        choice = torch.softmax(z / self.config.temperature, dim=2)
        return torch.einsum("bfc,fcd->bfd", choice, self._stack("meta_emb"))


class LinearDenseEmbedding(_DenseEmbedding):
    """A linear map without bias per feature.

    Args:
        names: the features.
        config: their settings.
        device: where the parameters live.
    """

    def __init__(
        self,
        names: Sequence[str],
        config: DenseEmbeddingConfig,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(names, config)
        std = math.sqrt(2.0 / (config.value_dim + config.embedding_dim))
        self._add("proj_w", (config.value_dim, config.embedding_dim), std, device)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, F, D) of ``x`` (B, F, value_dim)."""
        weight = self._stack("proj_w")
        if self.config.value_dim == 1:
            return x * weight.squeeze(1)
        return torch.einsum("bfv,fvd->bfd", x, weight)


class DenseEmbeddingCollection(nn.Module):
    """Embeds dense features; parameters ``dense_embs.{settings}.{kind}_{feature}.weight``.

    Args:
        configs: feature → its settings.
        device: where the parameters live.

    Raises:
        ConfigError: AutoDis of a feature with several values, or a number out of range.
    """

    def __init__(
        self,
        configs: Mapping[str, DenseEmbeddingConfig],
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        groups: dict[DenseEmbeddingConfig, list[str]] = {}
        for name, config in configs.items():
            _check(name, config)
            groups.setdefault(config, []).append(name)
        self.dense_embs: Any = nn.ModuleDict()
        for config, names in groups.items():
            kind = AutoDis if config.num_channels else LinearDenseEmbedding
            self.dense_embs[config.group_key()] = kind(names, config, device=device)

    def forward(self, dense: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns feature → (B, D).

        Args:
            dense: feature → (B, value_dim); other features may be there too.
        """
        embedded: dict[str, Tensor] = {}
        for module in self.dense_embs.values():
            values = torch.stack([dense[name] for name in module.names], dim=1)
            columns = torch.unbind(module(values), dim=1)
            embedded |= {name: columns[i] for i, name in enumerate(module.names)}
        return embedded


def _check(name: str, config: DenseEmbeddingConfig) -> None:
    if config.embedding_dim < 1:
        raise ConfigError(f"feature {name!r}: embedding_dim must be positive for a dense embedding")
    if config.value_dim < 1:
        raise ConfigError(f"feature {name!r}: a dense embedding needs a fixed positive value_dim")
    if not config.num_channels:
        return
    if config.value_dim > 1:
        raise ConfigError(
            f"feature {name!r}: autodis embeds one value, not value_dim {config.value_dim}",
            hint="use mlp {} or split the feature",
        )
    if config.temperature <= 0:
        raise ConfigError(f"feature {name!r}: autodis.temperature must be positive")
