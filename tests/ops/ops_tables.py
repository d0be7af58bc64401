"""Small collections and batches for the tests of tables on a CPU."""

import torch
from torchrec.modules.embedding_configs import (
    DataType,
    EmbeddingBagConfig,
    EmbeddingConfig,
    PoolingType,
)
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from tzrec.ops.accumulation import Accumulation

ROWS = 12
CPU = torch.device("cpu")


def bag_collection(*, weighted=False, data_type=DataType.FP32, pooling=PoolingType.SUM, dim=5):
    """Two tables; the first serves two features, one of which both tables serve."""
    torch.manual_seed(0)
    return EmbeddingBagCollection(
        tables=[
            EmbeddingBagConfig(
                name="shared",
                num_embeddings=ROWS,
                embedding_dim=dim,
                feature_names=["a", "b"],
                pooling=pooling,
                data_type=data_type,
            ),
            EmbeddingBagConfig(
                name="own",
                num_embeddings=ROWS,
                embedding_dim=dim + 3,
                feature_names=["b"],
                pooling=pooling,
                data_type=data_type,
            ),
        ],
        is_weighted=weighted,
        device=CPU,
    )


def row_collection(data_type=DataType.FP32):
    torch.manual_seed(0)
    return EmbeddingCollection(
        tables=[
            EmbeddingConfig(
                name=name,
                num_embeddings=ROWS,
                embedding_dim=5,
                feature_names=features,
                data_type=data_type,
                init_fn=torch.nn.init.normal_,
            )
            for name, features in {"shared": ["a", "b"], "own": ["c"]}.items()
        ],
        device=CPU,
        need_indices=True,
    )


def batch(seed, *, weighted=False, rows=6, dtype=torch.int64):
    """Features c, b, a (not the order of the configs) with empty bags and many duplicates."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 4, (3 * rows,), generator=generator)
    size = int(lengths.sum())
    return KeyedJaggedTensor(
        ["c", "b", "a"],
        torch.randint(0, ROWS // 2, (size,), generator=generator).to(dtype),
        lengths=lengths,
        weights=torch.rand(size, generator=generator) if weighted else None,
    )


def loss_of(output, seed):
    """Weights every output element differently."""
    if isinstance(output, dict):
        values = [jt.values() for jt in output.values()]
    else:
        values = [output[key] for key in output.keys()]  # noqa: SIM118 - not a dict
    generator = torch.Generator().manual_seed(seed)
    return sum((v * torch.randn(v.shape, generator=generator)).sum() for v in values)


def weights_of(collection):
    return {name: p.detach().clone() for name, p in collection.named_parameters()}


def touched(kjt, features):
    return sorted({int(i) for feature in features for i in kjt[feature].values()})


def update(collection):
    """Applies the gradients of the backward passes so far."""
    Accumulation(collection).apply()


def train(collection, seeds, **kwargs):
    """Runs a step per seed."""
    for seed in seeds:
        loss_of(collection(batch(seed, **kwargs)), seed).backward()
        update(collection)
