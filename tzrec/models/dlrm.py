"""DLRM (Naumov et al., arXiv 1906.00091)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.models.vectors import VectorRankModel
from tzrec.modules.interaction import InteractionArch
from tzrec.modules.mlp import MLP


class DLRM(VectorRankModel):
    """Dot products of all pairs of features, the numbers being one feature.

    ::

        v_0 = dense_mlp(dense), v_1 ... v_F = sparse              vectors of dim D
        dots = [v_i . v_j for i < j]
        y = Linear(final([dots, v_0, v_1, ..., v_F]))             with `arch_with_sparse`
        y = Linear(final([dots, v_0]))                            without it

    Feature groups: ``sparse``, whose features have one width D, and ``dense``, without which
    there is no v_0. The only group of a config is the sparse one, whatever its name.
    Arguments as of `BaseModel`.

    Raises:
        ConfigError: as `VectorRankModel`, or there are no two vectors to multiply.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self._model_config
        num_vectors, dim = self._vectors_shape
        self.interaction = InteractionArch(num_vectors)
        self._with_sparse = bool(config.arch_with_sparse)
        width = self.interaction.output_dim()
        if self._with_sparse:
            width += num_vectors * dim
        elif self.dense_mlp is not None:
            width += dim
        self.final_mlp = MLP(width, **config_to_kwargs(config.final))
        self.output_mlp = nn.Linear(self.final_mlp.output_dim(), self._num_class)

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the predictions of the config's losses."""
        dense, vectors = self._vectors(self.build_input(batch))
        parts = [self.interaction(vectors.unflatten(1, self._vectors_shape))]
        if self._with_sparse:
            parts.append(vectors)
        elif dense is not None:
            parts.append(dense)
        output = self.output_mlp(self.final_mlp(torch.cat(parts, dim=1)))
        return self._output_to_prediction(output)
