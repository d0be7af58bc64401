"""Progressive layered extraction (Tang et al., RecSys 2020)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.errors import ConfigError
from tzrec.models.multi_task_rank import MultiTaskRank
from tzrec.modules.extraction_net import ExtractionNet
from tzrec.modules.utils import check_module_name


class PLE(MultiTaskRank):
    """Layers of experts, each task's own and shared ones, that part step by step.

    ::

        h_1 = ... = h_T = s = x
        h_1, ..., h_T, s = ExtractionNet(h_1, ..., h_T, s)      for each extraction network
        y_t = Linear(MLP_t(h_t))

    x is the first feature group; the layer is `ExtractionNet`. The shared output s exists up to
    the layer before the last one with shared experts.
    Arguments as of `BaseModel`.

    Raises:
        ConfigError: there is no extraction network, or one does not fit.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_input()
        networks = list(self._model_config.extraction_networks)
        if not networks:
            raise ConfigError("PLE has no extraction_networks")
        num_task = len(self._task_tower_cfgs)
        width = self.embedding_group.group_total_dim(self.first_group)
        self.extraction_nets: Any = nn.ModuleDict()
        for index, config in enumerate(networks):
            name = check_module_name(config.network_name, "network_name")
            if name in self.extraction_nets:
                raise ConfigError(f"two extraction networks are called {name!r}")
            fields = config_to_kwargs(config)
            del fields["network_name"]
            shared_later = any(later.share_num for later in networks[index + 1 :])
            net = ExtractionNet([width] * num_task, width, has_shared_output=shared_later, **fields)
            self.extraction_nets[name], width = net, net.output_dim()
        self.task_towers = self._make_task_towers([width] * num_task)

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the predictions of the towers' losses."""
        shared = self.build_input(batch)[self.first_group]
        tasks = [shared] * len(self._task_tower_cfgs)
        for network in self.extraction_nets.values():
            tasks, shared = network(tasks, shared)
        return self._towers_to_prediction(tasks)
