"""Layers of models whose tasks read those of earlier tasks (DBMTL, DC2VR)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from tzrec.config.messages import config_to_kwargs
from tzrec.errors import ConfigError, did_you_mean
from tzrec.modules.mlp import MLP
from tzrec.modules.shared_bottom import SharedBottom

_BOTTOM = ("mask_net", "bottom_mlp", "expert_mlp", "gate_mlp")


def make_shared_bottom(in_features: int, config: Any) -> SharedBottom:
    """Returns what the tasks of a ``DBMTL`` or ``DC2VR`` message share."""
    fields = config_to_kwargs(config)
    parts = {name: fields[name] for name in _BOTTOM if name in fields}
    return SharedBottom(in_features, len(config.task_towers), num_expert=config.num_expert, **parts)


def make_task_mlps(towers: Sequence[Any], dim: int) -> tuple[Any, dict[str, int]]:
    """Returns the MLP of each tower by name, and the sizes of their outputs.

    A tower without ``mlp`` passes its input of size ``dim`` on.
    """
    mlps = nn.ModuleDict()
    dims = {}
    for tower in towers:
        name, width = tower.tower_name, dim
        mlps[name] = nn.Identity()
        if tower.HasField("mlp"):
            mlp = MLP(dim, **config_to_kwargs(tower.mlp))
            mlps[name], width = mlp, mlp.output_dim()
        dims[name] = width
    return mlps, dims


def make_outputs(towers: Iterable[Any], dims: Mapping[str, int]) -> Any:
    """Returns the last layer of each tower that has a loss, the others being read by towers only.

    Args:
        towers: the towers.
        dims: size of the input of each.
    """
    return nn.ModuleDict(
        {
            tower.tower_name: nn.Linear(dims[tower.tower_name], tower.num_class)
            for tower in towers
            if tower.losses
        }
    )


def check_earlier(tower: Any, names: Iterable[str], towers: Iterable[str]) -> None:
    """Raises a ConfigError if one of ``names`` is none of the ``towers`` that stand before.

    Args:
        tower: the tower that reads others.
        names: of those that it reads.
        towers: names of all towers in their order.
    """
    every = list(towers)
    earlier = every[: every.index(tower.tower_name)]
    for name in names:
        if name not in earlier:
            raise ConfigError(
                f"tower {tower.tower_name!r} reads tower {name!r}, which does not stand before it"
                f"{did_you_mean(name, earlier)}",
                hint=f"towers before it: {', '.join(earlier) or 'none'}",
            )
