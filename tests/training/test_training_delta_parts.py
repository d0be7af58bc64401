"""Parts of delta dumps: 8-bit rows, rows of sharded tables, config rules."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from knob_runs import load
from torchrec.distributed.model_parallel import DistributedModelParallel

from tzrec.errors import CheckpointError, ConfigError, Unsupported
from tzrec.options import Options
from tzrec.training.delta import rows as rows_module
from tzrec.training.delta.files import _bytes, remove_partial
from tzrec.training.delta.quantise import dequantise, quantise
from tzrec.training.delta.rows import read_rows
from tzrec.training.distributed.process_group import process_group

DUMP = "train_config.delta_embedding_dump_config"


def values(seed, size, spread=1.0, shift=0.0):
    return (np.random.default_rng(seed).normal(size=size) * spread + shift).astype(np.float32)


CASES = {
    "around zero": values(0, (200, 16)),
    "far from zero": values(1, (200, 16), 0.01, 40.0),
    "tiny": values(2, (200, 4), 1e-7),
    "one value": np.full((3, 8), 0.3, np.float32),
    "zeros": np.zeros((2, 4), np.float32),
    "one column": values(3, (5, 1)),
    "large": values(4, (50, 8), 10_000.0),
    "no rows": np.zeros((0, 8), np.float32),
}


@pytest.mark.parametrize("case", CASES)
def test_eight_bits_within_the_bound(case):
    rows = CASES[case]
    packed = quantise(rows) if len(rows) else np.zeros((0, 12), np.uint8)
    assert packed.dtype == np.uint8
    assert packed.shape == (len(rows), 4 + rows.shape[1])
    if not len(rows):
        return
    back = dequantise(_bytes(packed))
    scale, offset = packed[:, :2].copy().view("<f2"), packed[:, 2:4].copy().view("<f2")
    scale, offset = scale.astype(np.float64), offset.astype(np.float64)
    low, high = rows.min(1, keepdims=True), rows.max(1, keepdims=True)
    bound = scale / 2 + np.abs(255 * scale - (high - low)) + np.abs(offset - low)
    assert (np.abs(back - rows) <= bound + 1e-6 * np.abs(rows)).all()
    # The bound itself is what eight bits and half floats allow.
    tight = (high - low) * (1 / 510 + 2.0**-10) + np.abs(low) * 2.0**-11 + 256 * 2.0**-25
    assert (bound <= tight).all()


def test_fbgemm_reads_the_rows():
    """FBGEMM's layout with half floats at the end of a row, its own decoder."""
    import fbgemm_gpu  # noqa: F401

    rows = CASES["around zero"]
    packed = quantise(rows)
    moved = torch.from_numpy(np.concatenate([packed[:, 4:], packed[:, :4]], axis=1))
    decoded = torch.ops.fbgemm.FusedNBitRowwiseQuantizedSBHalfToFloat(moved, 8).numpy()
    assert np.allclose(decoded, dequantise(_bytes(packed)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e6, -1e6])
def test_values_that_no_half_float_holds(bad):
    rows = np.zeros((2, 4), np.float32)
    rows[1, 2] = bad
    if bad == 1e6:  # only the range is large: 1e6 / 255 fits
        rows[:, 2] = 1e9
    with pytest.raises(CheckpointError, match="float16"):
        quantise(rows)


@pytest.fixture
def one_process():
    with process_group(Options()):
        yield


def sharded(whole, cuts):
    """A stand-in for a `ShardedTensor` of which this process holds some pieces."""
    pieces = [
        SimpleNamespace(
            tensor=whole[top:bottom, left:right].contiguous(),
            metadata=SimpleNamespace(
                shard_offsets=[top, left], shard_sizes=[bottom - top, right - left]
            ),
        )
        for top, bottom, left, right in cuts
    ]
    metadata = SimpleNamespace(shards_metadata=[piece.metadata for piece in pieces])
    return SimpleNamespace(
        size=lambda: whole.shape, metadata=lambda: metadata, local_shards=lambda: pieces
    )


@pytest.mark.parametrize(
    "cuts",
    [
        None,
        [(0, 50, 0, 6)],
        [(0, 20, 0, 6), (20, 50, 0, 6)],
        [(0, 50, 0, 2), (0, 50, 2, 6)],
        [(0, 25, 0, 3), (0, 25, 3, 6), (25, 50, 0, 3), (25, 50, 3, 6)],
    ],
    ids=["whole", "table", "rows", "columns", "grid"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_rows_of_shards(one_process, monkeypatch, cuts, dtype):
    monkeypatch.setattr(rows_module, "CHUNK", 7)
    whole = torch.randn(50, 6).to(dtype)
    numbers = np.sort(np.random.default_rng(0).choice(50, 23, replace=False))
    found = list(read_rows(whole if cuts is None else sharded(whole, cuts), numbers))
    assert np.concatenate([n for n, _ in found]).tolist() == numbers.tolist()
    vectors = np.concatenate([v for _, v in found])
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, whole[torch.from_numpy(numbers)].float().numpy())


def test_torchrec_tables_mark_the_rows_of_the_batch(one_process):
    """As our tables do, with the tables of TorchRec that several ranks use."""
    from knob_runs import Batches

    from tzrec.optim.optimizer import build_optimizer
    from tzrec.training import build
    from tzrec.training.delta.touched import TouchedRows
    from tzrec.training.distributed.wrap import distribute
    from tzrec.training.hooks.base import Hook
    from tzrec.training.trainer import Trainer

    device, found = torch.device("cpu"), {}
    config = load(())
    for kernels in ("auto", "torchrec"):
        build.seed_everything(0)
        features = build.build_features(config.data_config, config.feature_configs)
        wrapper = build.build_train_wrapper(config, features, device)
        model = distribute(
            wrapper, train_config=config.train_config, device=device, kernels=kernels
        )
        assert isinstance(model, DistributedModelParallel)
        touched = TouchedRows(model, device)

        class Mark(Hook):
            """Asks after each step."""

            def after_step(self, trainer, result, touched=touched, kernels=kernels):
                touched.add_batch(result.batch)
                found.setdefault(kernels, []).append(touched.merged())
                touched.clear()

        optimizer = build_optimizer(model, config.train_config)
        Trainer(model, optimizer, loader=Batches(features), hooks=[Mark()], num_epochs=1).fit()
    assert len(found["auto"]) == 4
    for one, other in zip(found["auto"], found["torchrec"], strict=True):
        ((weight, rows),) = one.items()
        assert len(rows) > 5
        assert np.array_equal(rows, other[weight])


def test_a_frozen_table_is_told_from_one_of_the_same_name():
    from torchrec.modules.embedding_configs import EmbeddingBagConfig, EmbeddingConfig
    from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection

    from tzrec.training.delta.touched import TouchedRows

    model = torch.nn.Module()
    facts = {"name": "item", "num_embeddings": 9, "embedding_dim": 4, "feature_names": ["f"]}
    pooled, steps = EmbeddingBagConfig(**facts), EmbeddingConfig(**facts)
    pooled.trainable, steps.trainable = False, True
    model.ebc, model.ec = EmbeddingBagCollection([pooled]), EmbeddingCollection([steps])
    assert list(TouchedRows(model, torch.device("cpu")).tables) == ["ec.embeddings.item.weight"]


def test_marks_survive_in_a_checkpoint(one_process):
    from tzrec.training.delta.touched import TouchedRows

    marks = [object.__new__(TouchedRows) for _ in range(2)]
    for mark, rows in zip(marks, (20, 13), strict=True):
        mark._flags = {"t": torch.zeros(rows, dtype=torch.uint8)}
    marks[0].add("t", np.array([3, 12, 13, 19, 500]))
    marks[0].add("other", np.array([1]))
    marks[1].unpack({**marks[0].pack(), "gone": torch.ones(1, dtype=torch.uint8)})
    assert marks[0].merged()["t"].tolist() == [3, 12, 13, 19]
    assert marks[1].merged()["t"].tolist() == [3, 12]
    marks[1].clear()
    assert marks[1].merged() == {}
    assert marks[1].pack() == {}


WRONG = [
    ("{ dump_interval_steps: 5 dump_interval_minutes: 5 }", "are both set", ConfigError),
    ("{ dump_interval_steps: 0 }", "dump_interval_steps: must be at least 1", ConfigError),
    ("{ dump_interval_minutes: 0 }", "dump_interval_minutes: must be at least 1", ConfigError),
    ("{ file_prefix: '' }", "file_prefix: must be the start", ConfigError),
    ("{ file_prefix: 'a/b' }", "file_prefix: must be the start", ConfigError),
    ("{ feature_store_config { region: 'x' } }", "feature store of Alibaba Cloud", Unsupported),
]


@pytest.mark.parametrize(("text", "said", "kind"), WRONG)
def test_wrong_configs(text, said, kind):
    with pytest.raises(kind, match=said) as caught:
        load((f"{DUMP}={text}",))
    assert len([line for line in str(caught.value).splitlines() if "is missing" in line]) == 0


@pytest.mark.parametrize("text", ["{ }", "{ dump_interval_minutes: 5 }"])
def test_right_configs(text):
    load((f"{DUMP}={text}",))


def test_arrow_sees_bytes():
    assert _bytes(np.arange(6, dtype=np.uint8).reshape(2, 3)).to_pylist() == [
        b"\x00\x01\x02",
        b"\x03\x04\x05",
    ]
    assert _bytes(np.zeros((0, 3), np.uint8)).type == pa.binary()


def test_any_prefix_finds_what_a_killed_run_left(tmp_path):
    for name in ("step_3", "step_3x"):
        (tmp_path / name).mkdir()
    left = [
        tmp_path / ".a[1]_step_3.parquet.partial",
        tmp_path / "step_3/.a[1]_step_3_rank_0_of_2.partial",
    ]
    others = [tmp_path / ".a1_step_3.parquet.partial", tmp_path / "a[1]_step_3.parquet"]
    for path in (*left, *others):
        path.touch()
    remove_partial(tmp_path, "a[1]")
    assert [path.exists() for path in (*left, *others)] == [False, False, True, True]
