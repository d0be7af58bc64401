"""A small model in the shape of a ScriptWrapper, without configs, features or parsers.

No postponed annotations here: the tracer copies those of `forward` into its code.
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig, EmbeddingConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

CPU = torch.device("cpu")


@dataclasses.dataclass
class FakeFeature:
    name: str
    is_sparse: bool = True
    is_weighted: bool = False
    is_sequence: bool = False
    sequence_delim: str | None = None


FEATURES = [
    FakeFeature("a"),
    FakeFeature("b"),
    FakeFeature("s", is_sequence=True, sequence_delim=";"),
    FakeFeature("x", is_sparse=False),
]


class FakeModel(nn.Module):
    """Pooled ids a and b, a sequence s, a number x; dropout; an inference switch."""

    def __init__(self) -> None:
        super().__init__()
        self.is_inference = False
        self.ebc = EmbeddingBagCollection(
            tables=[
                EmbeddingBagConfig(name=n, num_embeddings=100, embedding_dim=8, feature_names=[n])
                for n in ("a", "b")
            ]
        )
        self.ec = EmbeddingCollection(
            tables=[
                EmbeddingConfig(name="s", num_embeddings=100, embedding_dim=8, feature_names=["s"])
            ]
        )
        self.mlp = nn.Sequential(nn.Linear(25, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 1))

    def set_is_inference(self, value: bool) -> None:
        self.is_inference = value

    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        ids = KeyedJaggedTensor.from_lengths_sync(
            keys=["a", "b"],
            values=torch.cat([data["a.values"], data["b.values"]]),
            lengths=torch.cat([data["a.lengths"], data["b.lengths"]]),
        )
        steps = KeyedJaggedTensor.from_lengths_sync(
            keys=["s"], values=data["s.values"], lengths=data["s.lengths"]
        )
        pooled = self.ebc(ids).to_dict()
        history = self.ec(steps)["s"].to_padded_dense().sum(1)
        hidden = torch.cat([pooled["a"], pooled["b"], history, data["x.values"]], dim=1)
        logits = self.mlp(hidden).squeeze(1)
        outputs = {"logits": logits, "probs": torch.sigmoid(logits)}
        if not self.is_inference:
            outputs["training_only"] = logits
        return outputs


class FakeWrapper(nn.Module):
    """What ScriptWrapper is for the export: ``model`` and a forward on the flat dict."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, data: dict[str, Tensor], device: torch.device = CPU) -> dict[str, Tensor]:
        return self.model(data)


def fake_data(num_rows: int, *, max_length: int = 3, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    data: dict[str, Any] = {}
    for name in ("a", "b", "s"):
        lengths = torch.randint(
            0, max_length + 1, (num_rows,), dtype=torch.int32, generator=generator
        )
        data[f"{name}.values"] = torch.randint(0, 100, (int(lengths.sum()),), generator=generator)
        data[f"{name}.lengths"] = lengths
    data["x.values"] = torch.randn(num_rows, 1, generator=generator)
    return data


def use_fakes(patch) -> None:
    """Exports `FakeModel`, whose config no predictor could be made of: its files are checked."""
    from tzrec.deploy import artefact

    patch.setattr("tzrec.deploy.part_writer._script_wrapper", FakeWrapper)
    patch.setattr("tzrec.deploy.export._load_again", lambda path: artefact.verify_artefact(path))
