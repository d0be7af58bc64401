"""WuKong (Zhang et al., ICML 2024, arXiv 2403.02545)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.errors import ConfigError
from tzrec.models.vectors import VectorRankModel
from tzrec.modules.mlp import MLP
from tzrec.modules.wukong import WuKongLayer


class WuKong(VectorRankModel):
    """A stack of factorization machines, each layer doubling the order of interactions.

    ::

        X_0 = [dense_mlp(dense), sparse_1, ..., sparse_F]         (n, D)
        X_{l+1} = LN([FMB(X_l), LCB(X_l)] + residual)             see `WuKongLayer`
        y = Linear(final(flatten(X_L)))

    Feature groups: ``sparse``, whose features have one width D, and optionally ``dense``. The
    only group of a config is the sparse one, whatever its name.
    Arguments as of `BaseModel`.

    Raises:
        ConfigError: as `VectorRankModel`, or there is no layer.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self._model_config
        if not config.wukong_layers:
            raise ConfigError(
                "WuKong has no wukong_layers",
                hint="wukong_layers { lcb_feature_num: 16 fmb_feature_num: 16 "
                "feature_num_mlp { hidden_units: 512 } }",
            )
        num_features, dim = self._vectors_shape
        self.layers: Any = nn.ModuleList()
        for layer_config in config.wukong_layers:
            layer = WuKongLayer(num_features, dim, **config_to_kwargs(layer_config))
            num_features = layer.output_feature_num()
            self.layers.append(layer)
        self.final_mlp = MLP(num_features * dim, **config_to_kwargs(config.final))
        self.output_mlp = nn.Linear(self.final_mlp.output_dim(), self._num_class)

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the predictions of the config's losses."""
        _, vectors = self._vectors(self.build_input(batch))
        features = vectors.unflatten(1, self._vectors_shape)
        for layer in self.layers:
            features = layer(features)
        output = self.output_mlp(self.final_mlp(features.flatten(1)))
        return self._output_to_prediction(output)
