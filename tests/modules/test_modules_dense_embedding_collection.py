import numpy as np
import pytest
import torch

from tzrec.errors import ConfigError
from tzrec.modules.dense_embedding_collection import (
    DenseEmbeddingCollection,
    DenseEmbeddingConfig,
)


def array(x: torch.Tensor) -> np.ndarray:
    return x.detach().double().numpy()


def test_autodis_formula_and_names() -> None:
    torch.manual_seed(0)
    config = DenseEmbeddingConfig(1, 5, num_channels=3, temperature=0.3, keep_prob=0.6)
    module = DenseEmbeddingCollection({"a": config, "b": config})
    state = module.state_dict()
    prefix = "dense_embs.autodis_3_5_0p3_0p6."
    kinds = [f"{kind}_{name}" for kind in ("meta_emb", "proj_w", "proj_m") for name in "ab"]
    assert sorted(state) == sorted(f"{prefix}{kind}.weight" for kind in kinds)
    data = {"a": torch.randn(4, 1), "b": torch.randn(4, 1), "other": torch.randn(4, 2)}
    out = module(data)
    assert list(out) == ["a", "b"]
    for name in "ab":
        w, m, e = (
            array(state[f"{prefix}{k}_{name}.weight"]) for k in ("proj_w", "proj_m", "meta_emb")
        )
        x = array(data[name])[:, 0]
        for row in range(4):
            h = w.reshape(-1) * x[row]
            h = np.where(h > 0, h, 0.01 * h)
            z = (m @ h + 0.6 * h) / 0.3
            p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
            np.testing.assert_allclose(array(out[name][row]), p @ e, atol=1e-5)


@pytest.mark.parametrize("value_dim", [1, 3])
def test_linear_formula_and_names(value_dim: int) -> None:
    torch.manual_seed(0)
    config = DenseEmbeddingConfig(value_dim, 4)
    module = DenseEmbeddingCollection({"a": config, "b": config})
    data = {name: torch.randn(5, value_dim) for name in "ab"}
    out = module(data)
    for name in "ab":
        weight = array(module.state_dict()[f"dense_embs.mlp_{value_dim}_4.proj_w_{name}.weight"])
        np.testing.assert_allclose(array(out[name]), array(data[name]) @ weight, atol=1e-6)


def test_different_settings_are_separate_modules() -> None:
    module = DenseEmbeddingCollection(
        {
            "a": DenseEmbeddingConfig(1, 4),
            "b": DenseEmbeddingConfig(2, 4),
            "c": DenseEmbeddingConfig(1, 4, num_channels=2, temperature=0.1),
            "d": DenseEmbeddingConfig(1, 4, num_channels=2, temperature=0.2),
            # 0.1 as a float32 of a message
            "e": DenseEmbeddingConfig(1, 4, num_channels=2, temperature=0.10000000149),
        }
    )
    names = [m.names for m in module.dense_embs.values()]
    assert names == [["a"], ["b"], ["c", "e"], ["d"]]
    data = {n: torch.randn(3, 2 if n == "b" else 1) for n in "abcde"}
    assert {n: tuple(v.shape) for n, v in module(data).items()} == dict.fromkeys("acebd", (3, 4))


def test_initial_spread() -> None:
    torch.manual_seed(0)
    autodis = DenseEmbeddingConfig(1, 64, num_channels=50)
    module = DenseEmbeddingCollection({f"f{i}": autodis for i in range(30)})
    for kind, std in {"meta_emb": 1.0, "proj_w": (2 / 51) ** 0.5, "proj_m": 50**-0.5}.items():
        weights = [w.flatten() for name, w in module.state_dict().items() if f".{kind}_" in name]
        assert torch.cat(weights).std() == pytest.approx(std, rel=0.05)
        assert abs(torch.cat(weights).mean()) < 0.05
    module = DenseEmbeddingCollection({f"f{i}": DenseEmbeddingConfig(3, 61) for i in range(30)})
    spread = torch.cat([w.flatten() for w in module.state_dict().values()]).std()
    assert spread == pytest.approx((2 / 64) ** 0.5, rel=0.05)


def test_gradients_reach_all() -> None:
    torch.manual_seed(0)
    module = DenseEmbeddingCollection(
        {"a": DenseEmbeddingConfig(1, 4, num_channels=3), "b": DenseEmbeddingConfig(2, 4)}
    )
    out = module({"a": torch.randn(3, 1), "b": torch.randn(3, 2)})
    sum((v * torch.randn_like(v)).sum() for v in out.values()).backward()
    assert all(p.grad is not None and p.grad.any() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("a", DenseEmbeddingConfig(2, 4, num_channels=3), "not value_dim 2"),
        ("a", DenseEmbeddingConfig(1, 0), "embedding_dim"),
        ("a", DenseEmbeddingConfig(0, 4), "value_dim"),
        ("a", DenseEmbeddingConfig(1, 4, num_channels=3, temperature=0.0), "temperature"),
        ("a.b", DenseEmbeddingConfig(1, 4), "'a.b'"),
    ],
)
def test_wrong_settings(name: str, config: DenseEmbeddingConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DenseEmbeddingCollection({name: config})
