"""`MatchModel`: users and items as vectors, learnt from which item a user has chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tzrec.batch import HARD_NEG_INDICES, Batch
from tzrec.config.messages import which_field
from tzrec.config.specs import MATCH_LOSS, metric_name
from tzrec.errors import ConfigError, DataError, did_you_mean
from tzrec.loss.softmax_cross_entropy import SoftmaxCrossEntropy
from tzrec.metrics.base import gather_rows, world_size
from tzrec.models.match_tower import MatchTower, MatchTowerWoEG, TowerWoEGWrapper, TowerWrapper
from tzrec.models.model import BaseModel
from tzrec.models.objectives import build_metric, first_ids
from tzrec.models.rank_model import label_of, weighted_mean
from tzrec.modules.item_frequency import ItemFrequency
from tzrec.modules.match_scores import ItemRows, match_scores
from tzrec.modules.utils import BaseModule
from tzrec.protos.model_pb2 import FeatureGroupConfig, ModelConfig
from tzrec.protos.models.own_match_model_pb2 import MatchNegatives
from tzrec.protos.simi_pb2 import EUCLID, INNER_PRODUCT

if TYPE_CHECKING:
    from tzrec.features.feature import BaseFeature

__all__ = ["MatchModel", "MatchTower", "MatchTowerWoEG", "TowerWoEGWrapper", "TowerWrapper"]


class MatchModel(BaseModel):
    """Base of two-tower models.

    ::

        s(u, i) = <u, i> / temperature           COSINE: of vectors of length 1
                  -|u - i|^2 / temperature       EUCLID
        loss    = -log softmax(s)_positive       over the row's item and its negatives

    Every row of a batch is a positive, whatever its label says. Negatives are those of a sampler,
    or with ``in_batch_negative`` the items of the other rows; ``negatives`` mixes both, leaves out
    those that are the row's own item, and corrects scores by how often an item is a negative.

    A subclass makes ``user_tower`` and ``item_tower``, and `predict` returns the result of `sim`
    as ``similarity``. With a sampler the item tower gives ``[B positives | N shared | H hard]``.

    Arguments as of `BaseModel`.

    Attributes:
        item_frequency: estimate of how often items occur, where scores are corrected by it.

    Raises:
        ConfigError: there are no negatives, or ``item_id_feature`` is missing or no id feature.
    """

    user_tower: Any
    item_tower: Any

    def __init__(
        self,
        model_config: ModelConfig,
        features: Sequence[BaseFeature],
        labels: Sequence[str],
        sample_weights: Sequence[str] | None = None,
        sampler_type: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model_config, features, labels, sample_weights, sampler_type, **kwargs)
        config = self._model_config
        self._label_name = self._labels[0] if self._labels else ""
        self._sample_weight_name = self._sample_weights[0] if self._sample_weights else ""
        self._similarity = int(getattr(config, "similarity", INNER_PRODUCT))
        self._temperature = float(getattr(config, "temperature", 1.0))
        self._negatives: Any = getattr(config, "negatives", MatchNegatives())
        self._sampled = bool(sampler_type)
        self._in_batch = bool(getattr(config, "in_batch_negative", False))
        if self._sampled:
            self._in_batch = bool(self._negatives.in_batch_and_sampled)
        self._item_id = self._find_item_id()
        self.item_frequency: ItemFrequency | None = None
        if self._negatives.logq_correction and self._in_batch and self._item_id is not None:
            self.item_frequency = ItemFrequency(
                self._item_id.id_limit,
                num_entries=self._negatives.frequency_entries,
                decay=self._negatives.frequency_decay,
            )

    def _find_item_id(self) -> BaseFeature | None:
        name, negatives = self._negatives.item_id_feature, self._negatives
        needed = negatives.mask_accidental_hits or (negatives.logq_correction and self._in_batch)
        if not needed:
            return None
        known = {feature.name: feature for feature in self._features if feature.is_sparse}
        if name not in known:
            raise ConfigError(
                f"negatives.item_id_feature is {name!r}, it must be an id feature of the items"
                f"{did_you_mean(name, known)}"
            )
        return known[name]

    # --- towers ------------------------------------------------------------------------------

    def groups_of(self, *names: str) -> dict[str, Any]:
        """Returns ``feature_groups`` and ``features`` of a tower that reads these groups.

        Raises:
            ConfigError: there is no such group.
        """
        config = self._base_model_config
        by_name = {group.group_name: group for group in config.feature_groups}
        groups: list[FeatureGroupConfig] = []
        for name in names:
            if name not in by_name:
                raise ConfigError(
                    f"a tower reads the feature group {name!r}, which does not exist"
                    f"{did_you_mean(name, by_name)}"
                )
            groups.append(by_name[name])
        return {
            "feature_groups": groups,
            "features": self.get_features_in_feature_groups(groups),
            "model_config": config,
        }

    def check_vector_dims(self) -> None:
        """Checks that users and items can be compared.

        Raises:
            ConfigError: their vectors (``vector_dim`` of the towers) differ in size.
        """
        user, item = self.user_tower.vector_dim, self.item_tower.vector_dim
        if user != item:
            raise ConfigError(
                f"the user tower gives vectors of size {user}, the item tower of size {item}",
                hint="set output_dim, or end both mlps with equal hidden_units",
            )

    def export_parts(self) -> dict[str, BaseModule]:
        """Returns the towers: directory in the export to module."""
        return {
            "user": TowerWrapper(self.user_tower, "user_tower"),
            "item": TowerWrapper(self.item_tower, "item_tower"),
        }

    # --- scores ------------------------------------------------------------------------------

    def num_rows(self, batch: Batch) -> int:
        """Returns B, the number of rows before sampled ones were added."""
        return label_of(batch, self._label_name).size(0)

    def sim_of_batch(self, user_emb: Tensor, item_emb: Tensor, batch: Batch) -> Tensor:
        """Returns `sim` with what the batch tells of the items.

        Args:
            user_emb: (B, D); rows beyond B are passed over.
            item_emb: (B + N + H, D).
            batch: the batch.
        """
        hard = batch.additional_infos.get(HARD_NEG_INDICES) if self._sampled else None
        ids = None
        if self._negatives.mask_accidental_hits:
            ids = self._item_ids(batch)[: item_emb.size(0)]
        return self.sim(user_emb[: self.num_rows(batch)], item_emb, hard, ids)

    def sim(
        self,
        user_emb: Tensor,
        item_emb: Tensor,
        hard_neg_indices: Tensor | None = None,
        item_ids: Tensor | None = None,
    ) -> Tensor:
        """Returns the scores (B, C) of users against their candidates, see `match_scores`.

        Args:
            user_emb: (B, D).
            item_emb: (B + N + H, D), without a sampler (B, D).
            hard_neg_indices: (H, 2) row of the batch and running number within it.
            item_ids: (B + N + H,) ids that tell items apart. With them, negatives that are the
                row's positive are left out.
        """
        num = user_emb.size(0)
        rows = ItemRows.of(num, hard_neg_indices, in_batch=self._in_batch, ids=item_ids)
        return self.scores(user_emb, item_emb, rows)

    def scores(self, users: Tensor, items: Tensor, rows: ItemRows) -> Tensor:
        """Returns the similarities of users (R, D) and items, divided by the temperature.

        In the layout of `match_scores`.
        """
        return match_scores(*self._as_products(users, items), rows)

    def _as_products(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Returns vectors whose inner products are the scores."""
        users = users.float() / self._temperature
        if self._similarity != EUCLID:
            return users, items
        items = items.float()
        # -|u - i|^2 = <2 u, i> - |u|^2 - |i|^2
        of_users = users.square().sum(dim=1, keepdim=True) * -self._temperature
        of_items = items.square().sum(dim=1, keepdim=True)
        scale = torch.full_like(of_users, -1.0 / self._temperature)
        one = torch.ones_like(of_items)
        return torch.cat([2.0 * users, of_users, scale], 1), torch.cat([items, one, of_items], 1)

    def _item_ids(self, batch: Batch) -> Tensor:
        """Returns the id (B + N + H,) of each item row, -1 = unknown."""
        assert self._item_id is not None
        return first_ids(batch, self._item_id.name, self._item_id.data_group)

    def targets(self, similarity: Tensor) -> Tensor:
        """Returns the column (B,) of each row's positive."""
        return ItemRows(similarity.size(0), in_batch=self._in_batch).targets(similarity.device)

    # --- losses ------------------------------------------------------------------------------

    def init_loss(self) -> None:
        """Makes the loss of the config.

        Raises:
            ConfigError: there is no label column, no negative, or another loss than one softmax.
        """
        if not self._label_name:
            raise ConfigError(
                f"{type(self).__name__} has no label column",
                hint="name one: data_config { label_fields: ... }; its values are not read",
            )
        if not (self._sampled or self._in_batch):
            raise ConfigError(
                f"{type(self).__name__} has no negatives to learn from",
                hint="add a sampler to data_config, or set in_batch_negative: true",
            )
        losses = [which_field(loss, "loss") for loss in self._base_model_config.losses]
        if losses != [MATCH_LOSS]:
            raise ConfigError(
                f"{type(self).__name__} learns from a single loss, {MATCH_LOSS}, not from {losses}",
                hint=f"losses {{ {MATCH_LOSS} {{}} }}",
            )
        self._loss_modules.clear()
        self._loss_modules[MATCH_LOSS] = SoftmaxCrossEntropy()

    def row_weights(self, batch: Batch) -> Tensor | None:
        """Returns the weights (B,) of the rows, None if the config has no sample weights."""
        name = self._sample_weight_name
        return batch.sample_weights[name] if name else None

    def loss(self, predictions: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns the loss, and the penalties that the towers have added for this batch."""
        scores = predictions["similarity"]
        if self._negatives.logq_correction:
            positive, shared = self._log_expected(batch, scores.size(0))
            scores = corrected(scores, positive, shared, in_batch=self._in_batch)
        return self._loss_of(scores, self.targets(scores), self.row_weights(batch))

    def _loss_of(self, scores: Tensor, targets: Tensor, weight: Tensor | None) -> dict[str, Tensor]:
        """Returns the loss of scores (R, C), and the penalties.

        Args:
            scores: those that the softmax is over.
            targets: (R,) column of the positive.
            weight: (R,) weights, None = all are equal.
        """
        loss = weighted_mean(self._loss_modules[MATCH_LOSS](scores, targets), weight)
        losses = {MATCH_LOSS: loss * self._base_model_config.losses[0].weight}
        for tower in (self.user_tower, self.item_tower):
            losses |= tower.group_variational_dropout_loss
        return losses | self._loss_collection

    @torch.no_grad()
    def _log_expected(self, batch: Batch, num_rows: int) -> tuple[Tensor, Tensor]:
        """Returns log of the expected count in the pool, of the positives (B,) and shared (N,)."""
        parts: list[Tensor] = []
        num_shared = 0
        if self._sampled:
            positive, shared = (_info(batch, name) for name in ("pos_log_q", "neg_log_q"))
            num_shared = shared.numel()
            # An item that is never drawn counts as the rarest that was.
            lowest = shared.min() if num_shared else shared.new_zeros(())
            positive = positive[:num_rows]
            positive = torch.where(positive.isneginf(), lowest, positive)
            parts.append(torch.cat([positive, shared]) + math.log(max(num_shared, 1)))
        if self.item_frequency is not None:
            ids = self._item_ids(batch)[: num_rows + num_shared]
            self._count(ids[:num_rows])
            parts.append(self.item_frequency.log_probability(ids) + math.log(num_rows))
        both = torch.stack(parts).logsumexp(dim=0)
        return both[:num_rows], both[num_rows:]

    def _count(self, ids: Tensor) -> None:
        """Adds the items (B,) of a batch to the estimate of frequencies, those of all ranks."""
        if self.is_train and self.item_frequency is not None:
            self.item_frequency.update(gather_rows([ids])[0] if world_size() > 1 else ids)

    # --- metrics -----------------------------------------------------------------------------

    def init_metric(self) -> None:
        """Makes the metrics of the config; the loss's mean is among them.

        Raises:
            ConfigError: a metric is not one of ranks, or given twice.
        """
        self._metric_modules.clear()
        self._train_metric_modules.clear()
        config = self._base_model_config
        for modules, metrics in self._metrics():
            for metric in metrics:
                name = _name_of(metric)
                if name in modules:
                    raise ConfigError(f"metric {name} is given twice", hint="remove one of them")
                modules[name] = build_metric(metric, 1, {"similarity"})
        for loss in config.losses:
            self._init_loss_metric_impl(loss)

    def _metrics(self) -> list[tuple[Any, Any]]:
        config = self._base_model_config
        return [
            (self._metric_modules, config.metrics),
            (self._train_metric_modules, config.train_metrics),
        ]

    def update_metric(
        self,
        predictions: dict[str, Tensor],
        batch: Batch,
        losses: dict[str, Tensor] | None = None,
    ) -> None:
        """Adds a batch to the evaluation metrics; the loss's mean needs ``losses``."""
        scores = predictions["similarity"]
        for metric in self._base_model_config.metrics:
            self._metric_modules[_name_of(metric)].update(scores, self.targets(scores))
        if losses is not None:
            for loss in self._base_model_config.losses:
                self._update_loss_metric_impl(losses, self.num_rows(batch), loss)

    def update_train_metric(self, predictions: dict[str, Tensor], batch: Batch) -> None:
        """Adds a batch to the decayed metrics of training."""
        scores = predictions["similarity"]
        for metric in self._base_model_config.train_metrics:
            self._train_metric_modules[_name_of(metric)].update(scores, self.targets(scores))


def corrected(scores: Tensor, positive: Tensor, shared: Tensor, *, in_batch: bool) -> Tensor:
    """Returns scores minus the log of how often their item is expected among the candidates.

    That is what makes a softmax over a sample of the items one over all of them (Bengio and
    Senécal 2003; Yi et al., RecSys 2019; for mixed negatives Yang et al., WWW 2020). A hard
    negative is expected once.

    Args:
        scores: (R, C) as of `match_scores`.
        positive: (R,) log of the expected count of each row's positive.
        shared: (N,) that of the shared negatives.
        in_batch: the positives of other rows are negatives too.
    """
    column = torch.cat([positive if in_batch else shared.new_zeros(1), shared])
    scores = scores - torch.nn.functional.pad(column, (0, scores.size(1) - column.numel()))
    if not in_batch:
        # A constant per row has no gradient to record.
        with torch.no_grad():
            scores[:, 0] -= positive
    return scores


def _sim_with_sampler(
    user_emb: Tensor, item_emb: Tensor, hard_neg_indices: Tensor | None = None
) -> Tensor:
    """Returns inner products (B, C) of users (B, D) with their positive and the drawn items.

    What the interface calls the scores with a sampler, before the temperature; arguments as of
    `MatchModel.sim`.
    """
    return match_scores(user_emb, item_emb, ItemRows.of(user_emb.size(0), hard_neg_indices))


def _name_of(config: Any) -> str:
    """Returns the name under which a metric is reported."""
    name = which_field(config, "metric")
    if name is None:
        raise ConfigError("a metric is empty", hint="for example metrics { recall_at_k {} }")
    return metric_name(name, getattr(getattr(config, name), "top_k", 0))


def _info(batch: Batch, name: str) -> Tensor:
    if name not in batch.additional_infos:
        raise DataError(
            f"the batch has no {name}, which logq_correction of sampled negatives needs",
            hint="it is there when data_config and model_config come from the same config",
        )
    return batch.additional_infos[name]
