from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from torch import nn
from torchrec.fx import Tracer

from tzrec.errors import ConfigError, DataError
from tzrec.modules import sequence as S
from tzrec.protos import seq_encoder_pb2

B, T, D = 6, 5, 4
LENGTHS = [5, 0, 2, 1, 3, 4]
ATTN = {"hidden_units": [6, 3]}


def grouped(query_dim: int = D, steps: int = T, seed: int = 0) -> dict[str, torch.Tensor]:
    """Rows of a group `s`; with more steps than T the same rows, padded more."""
    generator = torch.Generator().manual_seed(seed)
    sequence = torch.randn(B, T, D, generator=generator)
    query = torch.randn(B, query_dim, generator=generator)
    for row, length in enumerate(LENGTHS):
        sequence[row, length:] = 0
    sequence = torch.cat([sequence, torch.zeros(B, steps - T, D)], dim=1)
    return {
        "s.query": query,
        "s.sequence": sequence,
        "s.sequence_length": torch.tensor(LENGTHS, dtype=torch.int32),
    }


def encoder(name: str, **more: Any) -> S.SequenceEncoder:
    torch.manual_seed(1)
    module = {
        "din": lambda: S.DINEncoder(D, D, input="s", attn_mlp=ATTN, **more),
        "simple": lambda: S.SimpleAttention(D, D, input="s", **more),
        "pooling": lambda: S.PoolingEncoder(D, input="s", **more),
        "self": lambda: S.SelfAttentionEncoder(
            D, input="s", multihead_attn_dim=8, num_heads=2, **more
        ),
        "window": lambda: S.MultiWindowDINEncoder(
            D, D, input="s", attn_mlp=ATTN, **{"windows_len": [1, 2, 4], **more}
        ),
    }[name]()
    if name == "window" and not more:
        center(module)
    return module


def center(module: Any) -> None:
    """Centres the scores, so that both sides of PReLU show."""
    seen: list[torch.Tensor] = []
    hook = module.active.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    nn.init.zeros_(module.linear.bias)
    data = grouped()
    data["s.query"] = data["s.query"][:, : D - module._query_padding]
    module(data)
    hook.remove()
    nn.init.constant_(module.linear.bias, -seen[0][seen[0] != 0].median().item() - 1e-3)


ALL = ["din", "simple", "pooling", "self", "window"]


def array(x: torch.Tensor) -> np.ndarray:
    return x.detach().double().numpy()


def linear(module: nn.Linear, x: np.ndarray) -> np.ndarray:
    return x @ array(module.weight).T + array(module.bias)


def mlp(module: Any, x: np.ndarray) -> np.ndarray:
    for layer in module.mlp:
        x = np.maximum(linear(layer.perceptron[0], x), 0)
    return x


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def rows(data: dict[str, torch.Tensor], limit: int = T) -> Any:
    """(query, steps that exist) of every row, in float64."""
    for row, length in enumerate(LENGTHS):
        yield array(data["s.query"][row]), array(data["s.sequence"][row, : min(length, limit)])


def din_oracle(module: Any, data: dict[str, torch.Tensor], limit: int = T) -> np.ndarray:
    out = []
    for query, keys in rows(data, limit):
        q = np.concatenate([query, np.zeros(D - len(query))])
        x = np.array([np.concatenate([q, k, q - k, q * k]) for k in keys]).reshape(-1, 4 * D)
        scores = linear(module.linear, mlp(module.mlp, x))[:, 0]
        out.append(softmax(scores) @ keys if len(keys) else np.zeros(D))
    return np.array(out)


@pytest.mark.parametrize("query_dim", [2, D])
@pytest.mark.parametrize("limit", [0, 2])
def test_din(query_dim: int, limit: int) -> None:
    torch.manual_seed(1)
    module = S.DINEncoder(D, query_dim, input="s", attn_mlp=ATTN, max_seq_length=limit)
    data = grouped(query_dim)
    expected = din_oracle(module, data, limit or T)
    np.testing.assert_allclose(array(module(data)), expected, atol=1e-5)
    assert module.output_dim() == D


def test_din_with_batch_statistics_over_all_steps() -> None:
    torch.manual_seed(1)
    module = S.DINEncoder(D, D, input="s", attn_mlp={"hidden_units": [6], "use_bn": True})
    data = grouped()
    k = array(data["s.sequence"])
    q = np.broadcast_to(array(data["s.query"])[:, None], k.shape)
    x = np.concatenate([q, k, q - k, q * k], axis=2).reshape(B * T, 4 * D)
    h = x @ array(module.mlp.first_linear().weight).T
    h = np.maximum((h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5), 0)
    scores = linear(module.linear, h).reshape(B, T)
    scores[np.arange(T) >= np.array(LENGTHS)[:, None]] = -(2.0**31) + 1
    expected = np.einsum("bt,btd->bd", softmax(scores), k)
    np.testing.assert_allclose(array(module(data)), expected, atol=1e-5)


@pytest.mark.parametrize("limit", [0, 3])
def test_simple_attention(limit: int) -> None:
    data = grouped()
    module = encoder("simple", max_seq_length=limit)
    expected = [softmax(k @ q) @ k if len(k) else np.zeros(D) for q, k in rows(data, limit or T)]
    np.testing.assert_allclose(array(module(data)), expected, atol=1e-6)


@pytest.mark.parametrize("limit", [0, 3])
@pytest.mark.parametrize("pooling", ["mean", "sum"])
def test_pooling(limit: int, pooling: str) -> None:
    data = grouped()
    module = encoder("pooling", pooling_type=pooling, max_seq_length=limit)
    expected = [
        k.sum(0) / (max(len(k), 1) if pooling == "mean" else 1) for _, k in rows(data, limit or T)
    ]
    np.testing.assert_allclose(array(module(data)), expected, atol=1e-6)


@pytest.mark.parametrize("limit", [0, 3])
@pytest.mark.parametrize("training", [True, False])
def test_self_attention(limit: int, training: bool) -> None:
    data = grouped()
    module: Any = encoder("self", max_seq_length=limit).train(training)
    attention = module.multihead_attn
    in_w, in_b = array(attention.in_proj_weight), array(attention.in_proj_bias)
    expected = []
    for _, keys in rows(data, limit or T):
        if not len(keys):
            expected.append(np.zeros(8))
            continue
        projected = [linear(m, keys) for m in (module.query, module.key, module.value)]
        q, k, v = (
            (x @ in_w[8 * i : 8 * i + 8].T + in_b[8 * i : 8 * i + 8]).reshape(-1, 2, 4)
            for i, x in enumerate(projected)
        )
        weights = softmax(np.einsum("ihd,jhd->hij", q, k) / 2.0)
        heads = np.einsum("hij,jhd->ihd", weights, v).reshape(-1, 8)
        expected.append(linear(attention.out_proj, heads).sum(0) / len(keys))
    np.testing.assert_allclose(array(module(data)), np.array(expected), atol=1e-5)
    assert module.output_dim() == 8


@pytest.mark.parametrize("query_dim", [3, D])
def test_multi_window(query_dim: int) -> None:
    torch.manual_seed(1)
    windows = [1, 2, 4]
    module = S.MultiWindowDINEncoder(D, query_dim, input="s", attn_mlp=ATTN, windows_len=windows)
    center(module)
    data = grouped(query_dim)
    expected, signs = [], set()
    for query, keys in rows(data):
        q = np.concatenate([query, np.zeros(D - query_dim)])
        x = np.array([np.concatenate([k, q * k, q]) for k in keys]).reshape(-1, 3 * D)
        scores = linear(module.linear, mlp(module.mlp, x))[:, 0]
        signs |= set(np.sign(scores))
        weights = np.where(scores > 0, scores, 0.25 * scores)
        parts, start = [], 0
        for length in windows:
            window = (weights[:, None] * keys)[start : start + length]
            parts.append(window.sum(0) / max(len(window), 1))
            start += length
        expected.append(np.concatenate([*parts, q]))
    np.testing.assert_allclose(array(module(data)), np.array(expected), atol=1e-5)
    assert signs == {-1.0, 1.0}
    assert module.output_dim() == D * 4


def test_multi_window_refuses_longer_sequences() -> None:
    module = encoder("window", windows_len=[1, 3])
    with pytest.raises(DataError, match="more than the sum of windows_len, 4"):
        module(grouped())


@pytest.mark.parametrize("name", ALL)
def test_padding_changes_nothing(name: str) -> None:
    module = encoder(name).eval()
    torch.testing.assert_close(module(grouped()), module(grouped(steps=T + 2)))


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_finite_and_reach_everything(name: str) -> None:
    module = encoder(name)
    data = grouped()
    data["s.sequence"].requires_grad_()
    (module(data) * torch.randn(B, module.output_dim())).sum().backward()
    grads = {n: p.grad for n, p in module.named_parameters()}
    assert all(g is not None and g.isfinite().all() for g in grads.values())
    # The score's bias is the same for all steps, so the softmax drops it.
    assert [n for n, g in grads.items() if not g.any() and n != "linear.bias"] == []
    grad = data["s.sequence"].grad
    assert grad.isfinite().all()
    assert not grad[1].any()


@pytest.mark.parametrize("name", ALL)
def test_one_empty_step(name: str) -> None:
    """A batch of empty sequences has one padded step."""
    module = encoder(name)
    data = {
        "s.query": torch.randn(2, D),
        "s.sequence": torch.zeros(2, 1, D),
        "s.sequence_length": torch.zeros(2, dtype=torch.int32),
    }
    out = module(data)
    history = out[:, : module.output_dim() - (D if name == "window" else 0)]
    assert torch.equal(history, torch.zeros_like(history))
    if list(module.parameters()):
        out.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("name", ALL)
def test_eager_equals_scripted(name: str) -> None:
    module = encoder(name).eval()

    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = module

        def forward(
            self, query: torch.Tensor, sequence: torch.Tensor, length: torch.Tensor
        ) -> torch.Tensor:
            return self.encoder(
                {"s.query": query, "s.sequence": sequence, "s.sequence_length": length}
            )

    wrapper = Wrapper()
    scripted = torch.jit.script(torch.fx.GraphModule(wrapper, Tracer().trace(wrapper)))
    data = list(grouped().values())
    for args in (data, [data[0][:2], data[1][:2, :3], data[2][:2].clamp(max=3)]):
        torch.testing.assert_close(scripted(*args), wrapper(*args), atol=1e-6, rtol=0)
    empty = [torch.randn(2, D), torch.zeros(2, 1, D), torch.zeros(2, dtype=torch.int32)]
    torch.testing.assert_close(scripted(*empty), wrapper(*empty), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ALL)
def test_autocast(name: str, dtype: torch.dtype) -> None:
    """In half precision the padding score must not overflow, and gradients stay close."""
    module = encoder(name)
    grads = []
    for enabled in (True, False):
        data = grouped()
        data["s.sequence"].requires_grad_()
        with torch.autocast("cpu", dtype, enabled=enabled):
            out = module(data)
        out.float().square().sum().backward()
        grads.append((out.float(), data["s.sequence"].grad))
    torch.testing.assert_close(grads[0], grads[1], atol=0.1, rtol=0.1)


def test_dropout_of_self_attention_changes_training() -> None:
    module = encoder("self", dropout=0.5)
    assert not torch.equal(module(grouped()), module(grouped()))
    module.eval()
    assert torch.equal(module(grouped()), module(grouped()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: S.DINEncoder(4, 5, input="s", attn_mlp=ATTN), "query dim 5 is larger"),
        (lambda: S.DINEncoder(4, 0, input="s", attn_mlp=ATTN), "needs a query"),
        (lambda: S.SimpleAttention(4, 3, input="s"), "must be equal"),
        (lambda: S.PoolingEncoder(4, input="s", pooling_type="max"), "mean or sum"),
        (lambda: S.PoolingEncoder(4, input="s", max_seq_length=-1), "max_seq_length"),
        (
            lambda: S.SelfAttentionEncoder(4, input="s", multihead_attn_dim=6, num_heads=4),
            "not divisible",
        ),
        (lambda: S.SelfAttentionEncoder(4, input="s", dropout=1.5), "dropout"),
        (
            lambda: S.MultiWindowDINEncoder(4, 4, input="s", attn_mlp=ATTN, windows_len=[]),
            "windows_len",
        ),
        (
            lambda: S.MultiWindowDINEncoder(4, 5, input="s", attn_mlp=ATTN, windows_len=[2]),
            "query dim 5 is larger",
        ),
    ],
)
def test_wrong_settings(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def parse(text: str) -> seq_encoder_pb2.SeqEncoderConfig:
    return text_format.Parse(text, seq_encoder_pb2.SeqEncoderConfig())


DIMS = {"s.query": D, "s.sequence": D, "only.sequence": 3}


@pytest.mark.parametrize(
    ("text", "cls", "output_dim"),
    [
        ('din_encoder { input: "s" attn_mlp { hidden_units: 3 } }', S.DINEncoder, D),
        ('simple_attention { input: "s" max_seq_length: 2 }', S.SimpleAttention, D),
        ('pooling_encoder { input: "only" pooling_type: "sum" }', S.PoolingEncoder, 3),
        ('self_attention_encoder { input: "only" }', S.SelfAttentionEncoder, 512),
        (
            'multi_window_din_encoder { input: "s" attn_mlp {hidden_units: 3} windows_len: [1, 2]}',
            S.MultiWindowDINEncoder,
            D * 3,
        ),
        ('pooling_encoder { input: "" }', S.PoolingEncoder, D),
    ],
)
def test_create(text: str, cls: type, output_dim: int) -> None:
    made = S.create_seq_encoder(parse(text), DIMS, default_input="s")
    assert type(made) is cls
    assert made.output_dim() == output_dim
    assert made.input() == ("only" if '"only"' in text else "s")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "selects no module"),
        ('pooling_encoder { input: "onyl" }', "did you mean 'only'"),
        ('din_encoder { input: "only" attn_mlp { hidden_units: 3 } }', "needs a query"),
    ],
)
def test_create_refuses(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        S.create_seq_encoder(parse(text), DIMS)
