"""The towers of match models, and what puts one of them behind an export of its own."""

# No postponed annotations: exports are traced, as in `tzrec.models.wrappers`.

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from tzrec.batch import Batch
from tzrec.features.feature import BaseFeature
from tzrec.modules.embedding import EmbeddingGroup
from tzrec.modules.utils import BaseModule
from tzrec.modules.variational_dropout import drop_features, group_dropouts
from tzrec.protos.model_pb2 import FeatureGroupConfig, ModelConfig
from tzrec.protos.simi_pb2 import COSINE


class _Tower(BaseModule):
    """What both kinds of towers have.

    Args:
        tower_config: message of the tower; ``input`` names its group.
        output_dim: size of the last layer, 0 = there is none.
        similarity: a ``Similarity``; with COSINE vectors have length 1.
        feature_groups: the groups that the tower reads.
        features: those of these groups.
        model_config: the ``ModelConfig``.

    Attributes:
        group_variational_dropouts: `VariationalDropout` by group, if the config asks for it.
        group_variational_dropout_loss: their penalties for the last batch.
    """

    def __init__(
        self,
        tower_config: Any,
        output_dim: int,
        similarity: int,
        feature_groups: Sequence[FeatureGroupConfig],
        features: Sequence[BaseFeature],
        model_config: ModelConfig,
    ) -> None:
        super().__init__()
        self.tower_config = tower_config
        self._group_name = str(tower_config.input)
        self._output_dim = int(output_dim)
        self._similarity = similarity
        self._feature_groups = list(feature_groups)
        self._features = list(features)
        self._model_config = model_config
        self.group_variational_dropouts: Any = nn.ModuleDict()
        self.group_variational_dropout_loss: dict[str, Tensor] = {}

    @property
    def features(self) -> list[BaseFeature]:
        """The features that the tower reads."""
        return self._features

    @property
    def group_name(self) -> str:
        """Name of the group that ``input`` of the config names."""
        return self._group_name

    def init_output(self, width: int, *, bias: bool = True) -> int:
        """Makes the last layer, if there is one, of ``width`` inputs; returns the vector's size."""
        self.output = nn.Linear(width, self._output_dim, bias=bias) if self._output_dim else None
        return self._output_dim or width

    def to_vector(self, x: Tensor) -> Tensor:
        """Returns the vector (…, D), float32, of what comes before the last layer (…, width)."""
        if self.output is not None:
            x = self.output(x)
        x = x.float()
        return F.normalize(x, p=2.0, dim=-1) if self._similarity == COSINE else x

    def drop(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """Applies variational dropout to the groups and keeps its penalties."""
        penalties = drop_features(self.group_variational_dropouts, groups)
        self.group_variational_dropout_loss = {} if self.is_inference else penalties
        return groups


class MatchTower(_Tower):
    """A tower with embeddings of its own; base of the towers of `DSSM` and others.

    A subclass calls `init_input` in its ``__init__``, and maps a batch to vectors (B, D) in
    ``forward``, from `build_input` to `to_vector`. Arguments: message of the tower, size of its
    last layer (0 = none), a ``Similarity``, the groups that it reads, their features, and the
    ``ModelConfig``.

    Attributes:
        embedding_group: the feature groups, after `init_input`.
    """

    embedding_group: EmbeddingGroup

    def init_input(self) -> None:
        """Makes the embeddings of the groups, and their variational dropouts."""
        self.embedding_group = EmbeddingGroup(self._features, self._feature_groups)
        self.group_variational_dropouts = group_dropouts(self.embedding_group, self._model_config)

    def build_input(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the tensors of the groups, see `EmbeddingGroup`."""
        return self.drop(self.embedding_group(batch))


class MatchTowerWoEG(_Tower):
    """A tower that reads the embeddings of its model, which the other tower shares.

    A subclass maps ``{group: tensor}`` to vectors (B, D) in ``forward``, from `drop` to
    `to_vector`. Arguments as of `MatchTower`.
    """

    def init_input(
        self, embedding_group: EmbeddingGroup, names: Sequence[str] | None = None
    ) -> None:
        """Makes the variational dropouts of the tower's groups, or of some of them."""
        if names is None:
            names = [group.group_name for group in self._feature_groups]
        self.group_variational_dropouts = group_dropouts(embedding_group, self._model_config, names)

    def own_embedding_group(self, shared: EmbeddingGroup) -> EmbeddingGroup:
        """Returns the tower's groups alone; the tables are those of ``shared``, not copies."""
        own = EmbeddingGroup(self._features, self._feature_groups, device="meta")
        state = shared.state_dict(keep_vars=True)
        own.load_state_dict({name: state[name] for name in own.state_dict()}, assign=True)
        return own


class TowerWrapper(BaseModule):
    """A tower as something to export: predicts ``{tower_name}_emb`` (B, D).

    Args:
        module: a `MatchTower`.
        tower_name: its name in the model; parameters are called as there.
    """

    def __init__(self, module: _Tower, tower_name: str = "user_tower") -> None:
        super().__init__()
        self._features = module.features
        self._tower_name = tower_name
        setattr(self, tower_name, module)
        self.set_is_inference(module.is_inference)

    @property
    def features(self) -> list[BaseFeature]:
        """The features that the tower reads."""
        return self._features

    @property
    def sampler_type(self) -> None:
        """None: nothing is sampled when serving."""
        return

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns ``{tower_name}_emb``."""
        return {f"{self._tower_name}_emb": getattr(self, self._tower_name)(batch)}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Returns `predict` of the batch."""
        return self.predict(batch)


class TowerWoEGWrapper(TowerWrapper):
    """A tower and its part of the shared embeddings as something to export.

    Args:
        module: a `MatchTowerWoEG`.
        embedding_group: the groups that the tower reads.
        tower_name: its name in the model; parameters are called as there.
    """

    def __init__(
        self,
        module: MatchTowerWoEG,
        embedding_group: EmbeddingGroup,
        tower_name: str = "user_tower",
    ) -> None:
        super().__init__(module, tower_name)
        self.embedding_group = embedding_group

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns ``{tower_name}_emb``."""
        groups = self.embedding_group(batch)
        return {f"{self._tower_name}_emb": getattr(self, self._tower_name)(groups)}
