"""MLP towers per feature group and attention towers per behaviour sequence."""

from __future__ import annotations

from torch import Tensor, nn

from tzrec.config.messages import config_to_kwargs
from tzrec.models.multi_tower import MultiTower
from tzrec.modules.sequence import DINEncoder


class MultiTowerDIN(MultiTower):
    """`MultiTower` plus Deep Interest Network towers (Zhou et al., arXiv 1706.06978).

    A DIN tower reads a SEQUENCE group that has a query (the candidate) and a sequence k_1…k_T:
    ``w_t = softmax_t(Linear(MLP([q, k_t, q − k_t, q ∘ k_t])))``, output ``Σ_t w_t k_t``. Its
    outputs follow those of the MLP towers.
    """

    def _init_more_towers(self) -> int:
        self.din_towers = nn.ModuleList()
        width = 0
        for tower in self._model_config.din_towers:
            encoder = DINEncoder(
                self.embedding_group.group_total_dim(f"{tower.input}.sequence"),
                self.embedding_group.group_total_dim(f"{tower.input}.query"),
                input=tower.input,
                attn_mlp=config_to_kwargs(tower.attn_mlp),
            )
            self.din_towers.append(encoder)
            width += encoder.output_dim()
        return width

    def _tower_outputs(self, groups: dict[str, Tensor]) -> list[Tensor]:
        return super()._tower_outputs(groups) + [tower(groups) for tower in self.din_towers]
