"""A causal transformer over the history as user tower (SASRec, Kang and McAuley, ICDM 2018)."""

# No postponed annotations: the towers are traced.

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.errors import ConfigError
from tzrec.models.match_model import MatchModel, MatchTowerWoEG, TowerWoEGWrapper, corrected
from tzrec.modules.causal_transformer import CausalTransformer
from tzrec.modules.embedding import EmbeddingGroup
from tzrec.modules.match_scores import ItemRows
from tzrec.modules.mlp import MLP
from tzrec.modules.utils import BaseModule
from tzrec.protos.model_pb2 import JAGGED_SEQUENCE, FeatureGroupConfig


class History(NamedTuple):
    """The steps that are read of every history, oldest first, a row without any has one of zeros.

    Attributes:
        steps: (N, D).
        age: (N,) number of steps after it.
        lengths: (B,) steps per row.
    """

    steps: Tensor
    age: Tensor
    lengths: Tensor

    def rows(self) -> Tensor:
        """Returns the row (N,) of each step."""
        return torch.repeat_interleave(self.lengths)

    def last(self) -> Tensor:
        """Returns the number (B,) of each row's latest step."""
        return torch.cumsum(self.lengths, 0) - 1


class SequenceUserTower(MatchTowerWoEG):
    """``u = Linear(MLP([h, user group]))`` of the states h of a history.

    The user group, the MLP and the last layer are optional.

    Args:
        embedding_group: that of the model.
        *args: as of `MatchTowerWoEG`.
        **kwargs: as of `MatchTowerWoEG`.
    """

    def __init__(self, embedding_group: EmbeddingGroup, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        fields = config_to_kwargs(self.tower_config)
        mlp, self._history_name = fields.pop("mlp", None), fields.pop("history_input")
        fields.pop("input", None)
        width = embedding_group.group_total_dim(f"{self._history_name}.sequence")
        self.transformer = CausalTransformer(width, **fields)
        if self._group_name:
            self.init_input(embedding_group, [self._group_name])
            width += embedding_group.group_total_dim(self._group_name)
        self.mlp = None
        if mlp is not None:
            self.mlp = MLP(width, **mlp)
            width = self.mlp.output_dim()
        self.vector_dim = self.init_output(width)

    def history(self, groups: dict[str, Tensor], lengths: Tensor) -> History:
        """Returns the steps that are read of histories of ``lengths`` (B,)."""
        steps = groups[f"{self._history_name}.sequence"]
        return History(*self.transformer.latest(steps, lengths))

    def lengths(self, groups: dict[str, Tensor]) -> Tensor:
        """Returns the number of steps of each row."""
        return groups[f"{self._history_name}.sequence_length"]

    def vectors(self, groups: dict[str, Tensor], states: Tensor, rows: Tensor | None) -> Tensor:
        """Returns the vectors (N, D) of states (N, Ds).

        Args:
            groups: of the embedding group, after `drop`.
            states: of the history.
            rows: (N,) their rows, None = one of each row.
        """
        x = states
        if self._group_name:
            user = groups[self._group_name]
            x = torch.cat([x, user if rows is None else user.index_select(0, rows)], dim=1)
        if self.mlp is not None:
            x = self.mlp(x)
        return self.to_vector(x)

    def forward(self, groups: dict[str, Tensor]) -> Tensor:
        """Returns the vectors (B, D) after the latest step."""
        groups = self.drop(groups)
        history = self.history(groups, self.lengths(groups))
        states = self.transformer(history.steps, history.age, history.lengths)
        return self.vectors(groups, states.index_select(0, history.last()), None)


class SequenceItemTower(MatchTowerWoEG):
    """``i = Linear(MLP(item group))``; both layers are optional.

    Args:
        width: size of the item group.
        *args: as of `MatchTowerWoEG`.
        **kwargs: as of `MatchTowerWoEG`.
    """

    def __init__(self, width: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mlp = None
        if self.tower_config.HasField("mlp"):
            self.mlp = MLP(width, **config_to_kwargs(self.tower_config.mlp))
            width = self.mlp.output_dim()
        self.vector_dim = self.init_output(width)

    def vectors(self, x: Tensor) -> Tensor:
        """Returns the vectors (N, D) of embedded items (N, width)."""
        return self.to_vector(x if self.mlp is None else self.mlp(x))

    def forward(self, groups: dict[str, Tensor]) -> Tensor:
        """Returns the vectors (B, D)."""
        return self.vectors(groups[self._group_name])

    def own_embedding_group(self, shared: EmbeddingGroup) -> EmbeddingGroup:
        """Returns the item group alone; the tables are those of the histories, not copies."""
        own = EmbeddingGroup(self._features, self._feature_groups, device="meta")
        state = shared.state_dict(keep_vars=True)
        tables = {name.partition(".embeddings.")[2]: name for name in state}
        found = {}
        for name in own.state_dict():
            table = name.partition(".embedding_bags.")[2]
            found[name] = state[tables[table] if table else f"seq_{name}"]
        own.load_state_dict(found, assign=True)
        return own


class SequenceTwoTower(MatchModel):
    """The next item from the items before it.

    ::

        h = CausalTransformer(history)                        states, see there
        u = Linear(MLP_u([h_latest, user group])),  i = Linear(MLP_i(item group))

    SASRec ("Self-attentive sequential recommendation", Kang and McAuley, ICDM 2018, arXiv
    1808.09781) as a two-tower model. Where layers are left out and the similarity is the inner
    product, scores are those of the paper, ``<h, e_item>``. Features of items and steps with one
    ``embedding_name`` have one table.

    With ``all_positions`` training learns every step: after step t the item of step t + 1, and
    after the latest one the row's item, each against the negatives that the rows share. So the
    group of the history has the features of the item group, in the same order and with the same
    tables. Negatives in the batch are then the items of the other rows, not their histories.
    Hard negatives count for the latest step only.

    All features live on the rows of the batch: with a sampler,
    ``data_config.force_base_data_group: true`` fills the rows that users lack. Variational dropout
    works on the user group only. Feature groups: those that the towers name. Arguments as of
    `BaseModel`.

    Raises:
        ConfigError: the towers give vectors of different sizes, the heads do not divide the size
            of a step, or steps and items differ with ``all_positions``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self._model_config
        user, item = config.user_tower, config.item_tower
        self._history_name = str(user.history_input)
        named = [self._history_name] + ([user.input] if user.input else [])
        of_user, of_item = self.groups_of(*named), self.groups_of(item.input)
        of_user["feature_groups"][0] = self._with_query([])
        with_items = self._with_query(of_item["feature_groups"][0].feature_names)
        self.embedding_group = EmbeddingGroup(
            self._features, [with_items, *of_user["feature_groups"][1:]]
        )
        settings = (config.output_dim, self._similarity)
        self.user_tower = SequenceUserTower(self.embedding_group, user, *settings, **of_user)
        width = self.embedding_group.group_total_dim(f"{self._history_name}.query")
        self.item_tower = SequenceItemTower(width, item, *settings, **of_item)
        self.check_vector_dims()
        self._all_positions = bool(config.all_positions)
        if self._all_positions:
            self._check_steps(width)

    def _with_query(self, names: Any) -> FeatureGroupConfig:
        """Returns the group of the history without padding, these features its query.

        Features of one sequence group share tables, whether they are steps or not.
        """
        groups = self._base_model_config.feature_groups
        group = FeatureGroupConfig()
        group.CopyFrom(next(g for g in groups if g.group_name == self._history_name))
        group.group_type = JAGGED_SEQUENCE
        group.feature_names[:] = [*names, *group.feature_names]
        return group

    def _check_steps(self, width: int) -> None:
        steps = self.embedding_group.group_total_dim(f"{self._history_name}.sequence")
        if steps != width:
            raise ConfigError(
                f"all_positions: a step of the history is {steps} wide, an item {width}",
                hint="give both groups the same features in the same order",
            )

    def export_parts(self) -> dict[str, BaseModule]:
        """Returns the towers, each with its part of the tables."""
        return {
            name: TowerWoEGWrapper(
                tower, tower.own_embedding_group(self.embedding_group), f"{name}_tower"
            )
            for name, tower in (("user", self.user_tower), ("item", self.item_tower))
        }

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns ``similarity`` (B, C).

        While ``all_positions`` are learnt it is (N, C) for all steps, the positive first, beside
        ``query_rows`` (N,), and where items are told apart ``query_ids`` (N,).
        """
        groups = self.user_tower.drop(self.embedding_group(batch))
        groups[self.item_tower.group_name] = groups[f"{self._history_name}.query"]
        num_rows = self.num_rows(batch)
        history = self.user_tower.history(groups, self.user_tower.lengths(groups)[:num_rows])
        states = self.user_tower.transformer(*history)
        items = self.item_tower(groups)
        if self._all_positions and self.is_train:
            users = self.user_tower.vectors(groups, states, history.rows())
            return self._all_similarities(users, items, history, batch)
        rows = torch.arange(num_rows, device=states.device)
        users = self.user_tower.vectors(groups, states.index_select(0, history.last()), rows)
        return {"similarity": self.sim_of_batch(users, items, batch)}

    def _all_similarities(
        self, users: Tensor, items: Tensor, history: History, batch: Batch
    ) -> dict[str, Tensor]:
        num_rows, rows = history.lengths.size(0), history.rows()
        pool = 0 if self._in_batch else num_rows
        # What follows a step: the next one, behind the latest the row's item.
        following = torch.arange(1, rows.size(0) + 1, device=rows.device)
        following = torch.where(history.age == 0, rows.size(0) + rows, following)
        known = torch.cat([self.item_tower.vectors(history.steps), items[:num_rows]])
        positives = known.index_select(0, following)
        predictions, ids = {"query_rows": rows}, None
        if self._item_id is not None:
            of_items = self._item_ids(batch)
            found = torch.cat([self._step_ids(batch, num_rows), of_items[:num_rows]])[following]
            predictions["query_ids"] = found
            if self._negatives.mask_accidental_hits:
                ids = torch.cat([found, of_items[pool:]])
        hard = batch.additional_infos.get("hard_neg_indices") if self._sampled else None
        layout = ItemRows(
            rows.size(0),
            hard_rows=None if hard is None else history.last()[hard[:, 0].long()],
            hard_columns=None if hard is None else hard[:, 1].long(),
            own_shared=rows if self._in_batch else None,
            ids=ids,
        )
        scores = self.scores(users, torch.cat([positives, items[pool:]]), layout)
        return predictions | {"similarity": scores}

    def _step_ids(self, batch: Batch, num_rows: int) -> Tensor:
        """Returns the item id (N,) of each step that is read, -1 for one that is not there."""
        assert self._item_id is not None
        by_name = {group.group_name: group for group in self._base_model_config.feature_groups}
        items = by_name[self._model_config.item_tower.input].feature_names
        steps = by_name[self._history_name].feature_names
        name = steps[list(items).index(self._item_id.name)]
        column = batch.sparse_features[self._item_id.data_group][name]
        values = column.values().unsqueeze(1) + 1
        found, _, _ = self.user_tower.transformer.latest(values, column.lengths()[:num_rows])
        return found.squeeze(1) - 1

    def targets(self, similarity: Tensor) -> Tensor:
        """Returns the column of each row's positive."""
        if self._all_positions and self.is_train:
            return torch.zeros(similarity.size(0), dtype=torch.int64, device=similarity.device)
        return super().targets(similarity)

    def loss(self, predictions: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns the loss, of all steps alike while they are learnt; and penalties."""
        if "query_rows" not in predictions:
            return super().loss(predictions, batch)
        scores, rows = predictions["similarity"], predictions["query_rows"]
        if self._negatives.logq_correction:
            scores = corrected(
                scores, *self._log_expected_of_steps(predictions, batch), in_batch=False
            )
        weight = self.row_weights(batch)
        return self._loss_of(
            scores, self.targets(scores), None if weight is None else weight.index_select(0, rows)
        )

    @torch.no_grad()
    def _log_expected_of_steps(
        self, predictions: dict[str, Tensor], batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Returns log of the expected count among the negatives, of positives and of negatives.

        How often a sampler draws the items of histories is not known. There a positive stands for
        itself, which its negatives do not: with accidental hits masked, ``exp`` of the scores adds
        up to what it does over all items, on average over the draws.
        """
        num_rows = self.num_rows(batch)
        if self._sampled:
            of_rows, negatives = self._log_expected(batch, num_rows)
            if self._in_batch:
                negatives = torch.cat([of_rows, negatives])
            return negatives.new_zeros(predictions["query_rows"].numel()), negatives
        ids = self._item_ids(batch)[:num_rows]
        self._count(ids)
        found: Any = self.item_frequency
        positive, shared = (
            found.log_probability(part) + math.log(num_rows)
            for part in (predictions["query_ids"], ids)
        )
        return positive, shared
