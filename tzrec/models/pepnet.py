"""PEPNet: parameters and embeddings with personal gates (Chang et al., KDD 2023)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.errors import ConfigError, DataError, did_you_mean
from tzrec.models.multi_task_rank import MultiTaskRank
from tzrec.models.rank_model import label_of
from tzrec.modules.pepnet import EPNet, PPNet

_KINDS = ("logits", "probs", "probs1", "y")


class PEPNet(MultiTaskRank):
    """Tasks in several domains, with gates for the domain and for the user, item and author.

    ::

        Gate(x) = gamma sigmoid(Linear(ReLU(Linear(x))))
        e' = Gate([domain, stop_gradient(e)]) * e                                  EPNet
        h_0 = e',  h_l = dropout(act(Linear(h_{l-1})) * Gate([uia, stop_gradient(e')]))   PPNet
        y_ti = Linear_ti(MLP_ti(h_t))                          for each task t and domain i

    Feature groups: ``all`` (e), and ``domain`` and ``uia``, without which there is no EPNet and
    PPNet has no gates; without ``ppnet_hidden_units`` there is no PPNet. arXiv 2302.01115.

    With several domains (``task_domain_num``) the label ``domain_input_name`` says in which one a
    row is, counted from 0. Predictions of all domains are given, ``probs_{tower}_{i}``; a task's
    loss and metrics compare each row's label with the prediction for its own domain.
    Arguments as of `BaseModel`.

    Raises:
        ConfigError: there are several domains, and nothing says which one a row is in.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_input()
        config, fields = self._model_config, config_to_kwargs(self._model_config)
        self._num_domain = int(config.task_domain_num)
        if self._num_domain > 1 and not config.domain_input_name:
            raise ConfigError(
                f"task_domain_num is {self._num_domain}, and domain_input_name is empty: nothing "
                "says which domain a row is in",
                hint="name the label column that holds it, or remove task_domain_num",
            )
        num_task = len(self._task_tower_cfgs)
        width = self.embedding_group.group_total_dim("all")
        self.epnet: Any = None
        if self.embedding_group.has_group("domain"):
            self.epnet = EPNet(
                width,
                self.embedding_group.group_total_dim("domain"),
                hidden_unit=config.epnet_hidden_unit or None,
                gamma=fields["epnet_gamma"],
            )
        self.ppnet: Any = None
        if config.ppnet_hidden_units:
            self.ppnet = PPNet(
                width,
                self.embedding_group.group_total_dim("uia") if self._has_uia() else 0,
                num_task,
                hidden_units=fields["ppnet_hidden_units"],
                activation=config.ppnet_activation,
                dropout_ratio=fields["ppnet_dropout_ratio"],
                gamma=fields["ppnet_gamma"],
            )
            width = self.ppnet.output_dim()
        self.domain_towers: Any = nn.ModuleList(
            self._make_task_towers([width] * num_task) for _ in range(self._num_domain)
        )

    def _has_uia(self) -> bool:
        return self.embedding_group.has_group("uia")

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the predictions of the towers' losses, for every domain if there are several."""
        groups = self.build_input(batch)
        x = groups["all"]
        if self.epnet is not None:
            x = self.epnet(x, groups["domain"])
        features = [x] * len(self._task_tower_cfgs)
        if self.ppnet is not None:
            features = self.ppnet(x, groups["uia"] if self._has_uia() else None)
        predictions: dict[str, Tensor] = {}
        for index, towers in enumerate(self.domain_towers):
            pairs = zip(towers.items(), features, strict=True)
            own = self._multi_task_output_to_prediction({name: t(h) for (name, t), h in pairs})
            suffix = f"_{index}" if self._num_domain > 1 else ""
            predictions |= {f"{name}{suffix}": value for name, value in own.items()}
        return predictions

    # --- the row's own domain ----------------------------------------------------------------

    def init_loss(self) -> None:
        """Makes the losses of all towers.

        Raises:
            ConfigError: a column that is read is not loaded, or a loss does not fit.
        """
        super().init_loss()
        name = self._model_config.domain_input_name
        if self._num_domain > 1 and name not in self._labels:
            raise ConfigError(
                f"the domain of a row is {name!r}, which is not in label_fields"
                f"{did_you_mean(name, self._labels)}",
                hint=f'add label_fields: "{name}" to data_config',
            )

    def loss(self, predictions: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns the losses of all towers and the penalties of the last `build_input`.

        Raises:
            DataError: the batch lacks a label, a label does not fit its loss, or a row's domain
                is none.
        """
        return super().loss(self._own_domain(predictions, batch), batch)

    def update_metric(
        self,
        predictions: dict[str, Tensor],
        batch: Batch,
        losses: dict[str, Tensor] | None = None,
    ) -> None:
        """Adds a batch to the evaluation metrics; the losses' means need ``losses``."""
        super().update_metric(self._own_domain(predictions, batch), batch, losses)

    def update_train_metric(self, predictions: dict[str, Tensor], batch: Batch) -> None:
        """Adds a batch to the decayed metrics of training."""
        super().update_train_metric(self._own_domain(predictions, batch), batch)

    def _own_domain(self, predictions: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns each tower's predictions (B,) or (B, C) for the domain of the row."""
        if self._num_domain == 1:
            return predictions
        domain = self._domain_of(batch)
        rows = torch.arange(domain.size(0), device=domain.device)
        own = {}
        for tower in self._task_tower_cfgs:
            for name in [f"{kind}_{tower.tower_name}" for kind in _KINDS]:
                if f"{name}_0" in predictions:
                    each = [predictions[f"{name}_{i}"] for i in range(self._num_domain)]
                    own[name] = torch.stack(each, dim=1)[rows, domain]
        return own

    def _domain_of(self, batch: Batch) -> Tensor:
        """Returns the domain (B,) of each row; only checked on a CPU, where looking is cheap."""
        name = self._model_config.domain_input_name
        label = label_of(batch, name)
        domain = label.long()
        if label.device.type != "cpu":
            return domain
        wrong = (domain < 0) | (domain >= self._num_domain) | (domain != label)
        if wrong.any():
            row = int(wrong.nonzero()[0])
            error = DataError(
                f"domain {name!r} is {label[row].item():g} in row {row} of the batch, it must be "
                f"a whole number from 0 to {self._num_domain - 1}",
                hint="correct the column, or task_domain_num",
            )
            error.row = row
            raise error
        return domain
