"""Groups of tiled batches = groups of the rows repeated by hand; eager and scripted."""

# No postponed annotations: TorchScript reads those of the traced module.

from typing import Any, Dict  # noqa: UP035

import pytest
import torch
from modules_fakes import FakeFeature, dense, ids, script, to_batch, to_parsed
from test_modules_embedding import CONFIG, FEATURES, ROWS, build, pick
from test_modules_embedding_export import NESTED_ALL
from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.datasets.batch_features import add_features
from tzrec.datasets.tiling import BATCH_SIZE, Tiling
from tzrec.modules.embedding import EmbeddingGroup
from tzrec.modules.sequence import (
    DINEncoder,
    MultiWindowDINEncoder,
    PoolingEncoder,
    SelfAttentionEncoder,
)

# Of test_modules_embedding.ROWS: weighted, several ids, numbers, all kinds of sequences. In "c"
# and "flat" all sequences are the user's; "seq" has marks of the item beside them.
USERS = {"user", "likes", "age", "price", "map", "clicks", "words", "times"}
# (user, items)
REQUESTS = {
    "one request": [(0, [0, 1, 2, 3])],
    "a user without a history": [(1, [0, 1, 2])],
    "one row": [(2, [3])],
    "rows of their own users": [(0, [0]), (1, [1]), (2, [2]), (3, [3])],
    "several requests": [(3, [1, 0]), (1, [0]), (0, [3, 3, 2])],
}


class Tiled(nn.Module):
    """Parse keys → tiled batch → groups."""

    def __init__(self, features: list[FakeFeature], group: nn.Module, mode: int) -> None:
        super().__init__()
        self._features = features
        self.group = group
        self._mode = mode

    # typing.Dict: the tracer turns dict[...] into a name that TorchScript does not know.
    def forward(self, parsed: Dict[str, Tensor]) -> Dict[str, Tensor]:  # noqa: UP006
        groups: dict[str, list[Any]] = {"__BASE__": self._features}
        features: list[Any] = self._features
        users = frozenset(f.name for f in features if f.name in USERS)
        tiled = Tiling(parsed, features, users, self._mode)
        batch = Batch()
        batch.user_rows = tiled.rows if self._mode == 3 else None
        add_features(batch, groups, parsed, tiled)
        return self.group(batch)


def tiled_and_plain(
    features: list[FakeFeature], requests: list[tuple[int, list[int]]]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Parse keys with users' rows once, and with all rows, both of Python lists."""
    once: dict[str, list[Any]] = {}
    rows: dict[str, list[Any]] = {}
    for feature in features:
        column = ROWS[feature.name]
        of_items = [column[item] for _, items in requests for item in items]
        of_users = [column[user] for user, items in requests for _ in items]
        is_theirs = feature.name in USERS
        once[feature.name] = [column[user] for user, _ in requests] if is_theirs else of_items
        rows[feature.name] = of_users if is_theirs else of_items
    counts = torch.tensor([len(items) for _, items in requests])
    parsed = {**to_parsed(features, once), BATCH_SIZE: counts}
    return parsed, to_parsed(features, rows)


@pytest.fixture(scope="module")
def group() -> EmbeddingGroup:
    return build(CONFIG + NESTED_ALL, wide_embedding_dim=3).eval()


@pytest.fixture(scope="module", params=[2, 3])
def modules(request: Any, group: EmbeddingGroup) -> tuple[Any, Any, int]:
    eager = Tiled(FEATURES, group, request.param).eval()
    return eager, script(eager), request.param


@pytest.mark.parametrize("requests", REQUESTS.values(), ids=REQUESTS.keys())
def test_equal_to_repeated_rows(
    modules: tuple[Any, Any, int], group: EmbeddingGroup, requests: Any
) -> None:
    eager, scripted, mode = modules
    once, rows = tiled_and_plain(FEATURES, requests)
    with torch.no_grad():
        expected = group(to_batch(FEATURES, rows))
        for module in (eager, scripted, scripted):
            found = module(once)
            for name, value in expected.items():
                if mode == 2:  # the same kernels on the same rows
                    assert torch.equal(found[name], value), name
                else:
                    torch.testing.assert_close(found[name], value, atol=1e-6, rtol=0, msg=name)


@pytest.mark.parametrize("size", [torch.tensor(4), torch.tensor([4])])
def test_one_number_for_all_users(modules: tuple[Any, Any, int], size: Tensor) -> None:
    eager, scripted, _ = modules
    once, _ = tiled_and_plain(FEATURES, REQUESTS["one request"])
    expected = eager(once)
    for module in (eager, scripted):
        torch.testing.assert_close(module({**once, BATCH_SIZE: size}), expected)


@pytest.mark.parametrize("mode", [2, 3])
def test_other_numbers_of_candidates_are_refused(group: EmbeddingGroup, mode: int) -> None:
    once, _ = tiled_and_plain(FEATURES, REQUESTS["one request"])
    with pytest.raises(RuntimeError):
        Tiled(FEATURES, group, mode)({**once, BATCH_SIZE: torch.tensor(3)})


def test_without_weights_and_with_users_alone() -> None:
    features = pick("user", "clicks", "words")
    text = """
    feature_groups { group_name: "g" group_type: DEEP feature_names: ["user"] }
    feature_groups { group_name: "s" group_type: SEQUENCE feature_names: ["user", "clicks"] }
    """
    alone = build(text, features)
    once, rows = tiled_and_plain(features, REQUESTS["several requests"])
    expected = alone(to_batch(features, rows))
    found = Tiled(features, alone, 3)(once)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_a_feature_of_two_tables() -> None:
    features = [ids("user", num_embeddings=20), ids("tags", value_dim=0), dense("age")]
    text = """
    feature_groups { group_name: "a" group_type: DEEP feature_names: ["tags", "user", "age"] }
    feature_groups { group_name: "b" group_type: DEEP embedding_name_suffix: "b"
        feature_names: ["user", "tags"] }
    """
    two = build(text, features)
    once, rows = tiled_and_plain(features, REQUESTS["several requests"])
    expected = two(to_batch(features, rows))
    for name, value in Tiled(features, two, 3)(once).items():
        assert torch.equal(value, expected[name]), name


class TestOnce:
    """What mode 3 is for."""

    def test_encoders_without_a_query_run_once_a_user(
        self, group: EmbeddingGroup, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows: list[tuple[str, int]] = []
        for cls in (PoolingEncoder, SelfAttentionEncoder):
            forward = cls.forward

            def counted(self: Any, groups: Any, forward: Any = forward, cls: Any = cls) -> Tensor:
                rows.append((cls.__name__, groups[f"{self._input}.sequence"].size(0)))
                return forward(self, groups)

            monkeypatch.setattr(cls, "forward", counted)
        once, _ = tiled_and_plain(FEATURES, REQUESTS["several requests"])
        seen = {}
        for mode in (2, 3):
            rows.clear()
            Tiled(FEATURES, group, mode)(once)
            seen[mode] = set(rows)
        assert seen[2] == {("PoolingEncoder", 6), ("SelfAttentionEncoder", 6)}
        assert seen[3] == {("PoolingEncoder", 3), ("SelfAttentionEncoder", 3)}

    def test_ids_are_looked_up_once(self, group: EmbeddingGroup) -> None:
        numbers = {}
        for mode in (2, 3):
            seen: list[int] = []
            table = group.seq_emb_impls["__BASE__"].ec_dict["6"].embeddings["clicks_emb"]
            hook = table.register_forward_hook(lambda m, i, o, seen=seen: seen.append(len(o)))
            once, _ = tiled_and_plain(FEATURES, [(0, [0, 1, 2, 3] * 10)])
            Tiled(FEATURES, group, mode)(once)
            hook.remove()
            numbers[mode] = seen
        assert numbers == {2: [120], 3: [3]}

    def test_tables_are_not_copied(self, group: EmbeddingGroup) -> None:
        before = group.state_dict().keys()
        Tiled(FEATURES, group, 3)(tiled_and_plain(FEATURES, REQUESTS["one row"])[0])
        assert group.state_dict().keys() == before


@pytest.mark.parametrize("activation", ["nn.ReLU", "Dice"])
@pytest.mark.parametrize("encoder", [DINEncoder, MultiWindowDINEncoder])
@pytest.mark.parametrize("lengths", [[3, 3, 3], [0, 0, 0], [1, 3, 0]])
def test_attention_over_repeated_steps(encoder: Any, activation: str, lengths: list[int]) -> None:
    """It multiplies in another order than over steps that differ from row to row."""
    torch.manual_seed(1)
    more: dict[str, Any] = {"windows_len": [1, 4]} if encoder is MultiWindowDINEncoder else {}
    mlp = {"hidden_units": [5, 3], "activation": activation}
    module = encoder(6, 4, input="s", attn_mlp=mlp, **more).eval()
    counts = torch.tensor(lengths)
    sequence = torch.randn(3, 3, 6) * (torch.arange(3) < counts.unsqueeze(1)).unsqueeze(2)
    groups = {"s.query": torch.randn(3, 4), "s.sequence": sequence, "s.sequence_length": counts}
    expected = module(groups)
    owners = {"s.owners": torch.zeros(3, dtype=torch.int64)}
    torch.testing.assert_close(module(groups | owners), expected, atol=1e-6, rtol=0)
