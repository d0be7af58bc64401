"""`Cluster`: the processes and their memory, those of this run or of one that is not there."""

from __future__ import annotations

import dataclasses

import torch
import torch.distributed as dist
from torchrec.distributed.comm import get_local_size
from torchrec.distributed.planner.types import (
    KernelConfig,
    Topology,
    TopologyFactory,
    TrainerConfig,
)

from tzrec.options import storage_reserve
from tzrec.utils.memory_limit import usable_memory


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Where tables can go.

    Attributes:
        world_size: number of processes.
        hosts: number of machines; they hold equally many processes.
        device_type: ``cpu`` or ``cuda``.
        hbm: bytes of a GPU, 0 without.
        ddr: bytes of a machine's main memory that its processes may use.
        reserved: share of the memory that is left to everything but tables.
    """

    world_size: int = 1
    hosts: int = 1
    device_type: str = "cpu"
    hbm: int = 0
    ddr: int = 0
    reserved: float = dataclasses.field(default_factory=storage_reserve)

    @classmethod
    def of_process(cls, device: torch.device) -> Cluster:
        """Returns the cluster of the process group; machines are taken to be like this one."""
        world_size = dist.get_world_size()
        local_size = get_local_size(world_size) if world_size > 1 else 1
        hbm = 0
        if device.type == "cuda":
            hbm = int(torch.cuda.get_device_properties(device).total_memory)
        return cls(
            world_size,
            max(world_size // local_size, 1),
            device.type,
            hbm,
            usable_memory(),
        )

    @property
    def local_size(self) -> int:
        """Processes of a machine."""
        return max(self.world_size // self.hosts, 1)

    @property
    def on_gpus(self) -> bool:
        """Whether tables go to GPUs."""
        return self.device_type == "cuda"

    def usable(self, *, in_ddr: bool = False) -> int:
        """Returns the bytes that tables may take on one rank.

        Args:
            in_ddr: of the machine's memory, not of the GPU's.
        """
        memory = self.hbm if self.on_gpus and not in_ddr else self.ddr // self.local_size
        return int(memory * (1 - self.reserved))

    def grown(self, factor: int) -> Cluster:
        """Returns the cluster with ``factor`` times as many machines."""
        return dataclasses.replace(
            self, world_size=self.world_size * factor, hosts=self.hosts * factor
        )

    def topology(self) -> Topology:
        """Returns what TorchRec's planner works with; what is reserved is left out."""
        return TopologyFactory.create_topology(
            TrainerConfig(
                world_size=self.world_size,
                local_world_size=self.local_size,
                hbm_cap_bytes=self.usable() if self.on_gpus else None,
                ddr_cap_bytes=self.usable(in_ddr=True),
            ),
            kernel_config=KernelConfig(compute_device=self.device_type),
        )

    def __str__(self) -> str:
        machines = "1 machine" if self.hosts == 1 else f"{self.hosts} machines"
        processes = "1 process" if self.world_size == 1 else f"{self.world_size} processes"
        hbm = f"{size_text(self.hbm)} a GPU, " if self.on_gpus else ""
        return (
            f"{processes} ({self.device_type}) on {machines}, {hbm}{size_text(self.ddr)} a machine"
        )


def size_text(num_bytes: float) -> str:
    """Returns ``1.5 GB``, of 10⁹ bytes as the flags of ``tzrec plan`` count them."""
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if num_bytes >= size:
            return f"{num_bytes / size:,.1f} {unit}"
    return f"{num_bytes / 10**3:,.1f} KB"
