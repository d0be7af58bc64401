"""Tree-based deep model (Zhu et al., KDD 2018): scores nodes of an item tree."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.errors import ConfigError
from tzrec.models.rank_model import RankModel
from tzrec.modules.embedding import EmbeddingGroup
from tzrec.modules.mlp import MLP
from tzrec.modules.sequence import MultiWindowDINEncoder
from tzrec.modules.utils import BaseModule
from tzrec.protos.model_pb2 import FeatureGroupConfig, FeatureGroupType

ITEM_EMBEDDING = "item_emb"
_STEPS = (FeatureGroupType.SEQUENCE, FeatureGroupType.JAGGED_SEQUENCE)


class TDM(RankModel):
    """Tells how well a node of the tree, a leaf or a group of items, fits a user.

    ::

        y = Linear(final([MultiWindowDIN(sequence group), DEEP groups in their order]))

    Feature groups: one SEQUENCE group whose query is the node, and any DEEP groups. ``tdm_sampler``
    makes the nodes of the training rows; `tzrec.retrieval.tree_search` walks the tree with the
    scores. arXiv 1801.02294, with the attention of section 4.1 over windows of the history.
    Arguments as of `BaseModel`.

    Raises:
        ConfigError: not one SEQUENCE group, or it has no query.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_input()
        config = self._model_config
        groups = self.embedding_group
        self._sequence_group = self._find_sequence_group()
        self._deep_groups = [n for n in groups.group_names() if n != self._sequence_group]
        self.multiwindow_din = MultiWindowDINEncoder(
            groups.group_total_dim(f"{self._sequence_group}.sequence"),
            groups.group_total_dim(f"{self._sequence_group}.query"),
            input=self._sequence_group,
            attn_mlp=config_to_kwargs(config.multiwindow_din.attn_mlp),
            windows_len=list(config.multiwindow_din.windows_len),
        )
        width = self.multiwindow_din.output_dim()
        width += sum(groups.group_total_dim(name) for name in self._deep_groups)
        self.final_mlp = MLP(width, **config_to_kwargs(config.final))
        self.output_mlp = nn.Linear(self.final_mlp.output_dim(), self._num_class)

    def _find_sequence_group(self) -> str:
        groups = self.embedding_group
        found = [name for name in groups.group_names() if groups.group_type(name) in _STEPS]
        if len(found) != 1:
            raise ConfigError(
                f"TDM reads one SEQUENCE group, there are {len(found)}: {', '.join(found) or '-'}"
            )
        return found[0]

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the predictions of the config's losses."""
        groups = self.build_input(batch)
        parts = [self.multiwindow_din(groups)] + [groups[name] for name in self._deep_groups]
        output = self.output_mlp(self.final_mlp(torch.cat(parts, dim=1)))
        return self._output_to_prediction(output)

    def export_parts(self) -> dict[str, BaseModule]:
        """Returns the model, and what makes the vectors that trees are clustered by."""
        return {"model": self, "embedding": TDMEmbedding(self)}


class TDMEmbedding(BaseModule):
    """The vectors of items in a trained `TDM`: the query of its sequence group.

    Args:
        model: gives the tables; their values are shared, not copied.

    Attributes:
        features: those of the query.
    """

    def __init__(self, model: TDM) -> None:
        super().__init__(model.is_inference, model.kernel())
        group = next(
            g
            for g in model._base_model_config.feature_groups
            if g.group_name == model._sequence_group
        )
        members = model.get_features_in_feature_groups([group])
        self.features = [feature for feature in members if not feature.is_sequence]
        query = FeatureGroupConfig(
            group_name=ITEM_EMBEDDING,
            feature_names=[feature.name for feature in self.features],
            embedding_name_suffix=group.embedding_name_suffix,
        )
        # As a DEEP group: it pools a query's ids in the same way, and needs no sequence.
        self.embedding_group = EmbeddingGroup(self.features, [query], device="meta")
        _share_weights(self.embedding_group, model.embedding_group)

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns ``item_emb`` (B, D)."""
        return {ITEM_EMBEDDING: self.embedding_group(batch)[ITEM_EMBEDDING]}

    @property
    def sampler_type(self) -> None:
        """Nothing is sampled where items are embedded."""


def _share_weights(target: EmbeddingGroup, source: EmbeddingGroup) -> None:
    """Puts the weights of ``source`` into ``target``, by table and by numeric feature."""
    tables = {_weight_name(key): value for key, value in source.seq_emb_impls.state_dict().items()}
    wanted = target.state_dict()
    target.load_state_dict({key: tables[_weight_name(key)] for key in wanted}, assign=True)


def _weight_name(key: str) -> str:
    """Returns what names a weight in pooled and un-pooled collections alike."""
    for part in (".embedding_bags.", ".embeddings.", ".dense_ec."):
        if part in key:
            return key.split(part)[1]
    raise AssertionError(key)
