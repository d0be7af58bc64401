"""Embedding tables on a CPU: FBGEMM's fused tables against ours, milliseconds per step.

A step is lookup, backward pass and update of embedding tables alone, one thread::

    python benchmarks/sparse_optim.py

Pooled: 26 tables of 100 to 1M rows (3.2M in all), one id per feature. Un-pooled: two tables of
1M and 10k rows, sequences of 12 or 13 ids. Ids follow Zipf(1.05). ``-`` = FBGEMM has no CPU kernel.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from google.protobuf import text_format
from torch import Tensor, nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig, EmbeddingConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from tzrec.errors import Unsupported
from tzrec.ops.accumulation import Accumulation
from tzrec.options import Options
from tzrec.protos.train_pb2 import TrainConfig
from tzrec.training.distributed.process_group import process_group
from tzrec.training.distributed.wrap import distribute

OPTIMIZERS = {
    "sgd": "sgd_optimizer { lr: 0.01 }",
    "adagrad": "adagrad_optimizer { lr: 0.01 }",
    "rowwise_adagrad": "rowwise_adagrad_optimizer { lr: 0.01 }",
    "adam": "adam_optimizer { lr: 0.001 }",
    "adam, clipped": "adam_optimizer { lr: 0.001 gradient_clipping: true }",
    "partial_rowwise_adam": "partial_rowwise_adam_optimizer { lr: 0.001 }",
    "lamb": "lamb_optimizer { lr: 0.001 }",
    "partial_rowwise_lamb": "partial_rowwise_lamb_optimizer { lr: 0.001 }",
    "lars_sgd": "lars_sgd_optimizer { lr: 0.01 }",
    "adadelta": "adadelta_optimizer { lr: 0.1 }",
    "rmsprop": "rmsprop_optimizer { lr: 0.001 }",
}


def zipf(rng: np.random.Generator, rows: int, size: int) -> np.ndarray:
    weights = np.arange(1, rows + 1) ** -1.05
    cumulative = np.cumsum(weights) / weights.sum()
    return rng.permutation(rows)[np.searchsorted(cumulative, rng.random(size))]


def pooled(batch: int, dim: int, num_batches: int) -> tuple[nn.Module, list, Callable]:
    rng = np.random.default_rng(0)
    rows = np.logspace(2, 6, 26).astype(int)
    names = [f"f{i}" for i in range(len(rows))]
    module = EmbeddingBagCollection(
        tables=[
            EmbeddingBagConfig(
                name=f"t_{n}", num_embeddings=int(r), embedding_dim=dim, feature_names=[n]
            )
            for n, r in zip(names, rows, strict=True)
        ],
        device=torch.device("cpu"),
    )
    lengths = torch.ones(len(names) * batch, dtype=torch.int32)
    batches = [
        KeyedJaggedTensor(
            names,
            torch.from_numpy(np.concatenate([zipf(rng, int(r), batch) for r in rows])),
            lengths=lengths,
        )
        for _ in range(num_batches)
    ]
    return module, batches, lambda output: [output.values()]


def unpooled(batch: int, dim: int, num_batches: int) -> tuple[nn.Module, list, Callable]:
    rng = np.random.default_rng(0)
    rows = {"long": 1_000_000, "short": 10_000}
    module = EmbeddingCollection(
        tables=[
            EmbeddingConfig(name=f"t_{n}", num_embeddings=r, embedding_dim=dim, feature_names=[n])
            for n, r in rows.items()
        ],
        device=torch.device("cpu"),
    )
    batches = []
    for _ in range(num_batches):
        lengths = torch.from_numpy(rng.integers(12, 14, len(rows) * batch)).int()
        sizes = lengths.view(len(rows), batch).sum(1).tolist()
        ids = [zipf(rng, r, size) for r, size in zip(rows.values(), sizes, strict=True)]
        batches.append(
            KeyedJaggedTensor(list(rows), torch.from_numpy(np.concatenate(ids)), lengths=lengths)
        )
    return module, batches, lambda output: [output[name].values() for name in rows]


class Wrapped(nn.Module):
    def __init__(self, collection: nn.Module) -> None:
        super().__init__()
        self.model = collection

    def forward(self, kjt: KeyedJaggedTensor) -> object:
        return self.model(kjt)


def measure(model: nn.Module, batches: list, outputs: Callable, steps: int) -> tuple[float, float]:
    """Returns the medians of CPU and wall milliseconds per step."""
    gradients: dict[tuple[int, ...], Tensor] = {}
    tables = Accumulation(model)
    cpu, wall = [], []
    for step in range(steps + 8):
        batch = batches[step % len(batches)]
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        tensors = outputs(model(batch))
        for tensor in tensors:
            if tuple(tensor.shape) not in gradients:
                gradients[tuple(tensor.shape)] = torch.randn_like(tensor)
        torch.autograd.backward(tensors, [gradients[tuple(t.shape)] for t in tensors])
        tables.apply()  # FBGEMM's are done
        if step >= 8:
            cpu.append(time.process_time() - cpu_start)
            wall.append(time.perf_counter() - wall_start)
    return 1e3 * statistics.median(cpu), 1e3 * statistics.median(wall)


def run(task: Callable, arguments: argparse.Namespace, device: torch.device) -> None:
    print(
        f"\n{task.__name__}, batch {arguments.batch_size}, dim {arguments.dim}: CPU (wall) ms/step"
    )
    print(f"{'optimizer':<22}{'FBGEMM':>18}{'ours':>18}")
    for name, text in OPTIMIZERS.items():
        cells = []
        for kernels in ("torchrec", "auto"):
            torch.manual_seed(0)
            module, batches, outputs = task(arguments.batch_size, arguments.dim, 4)
            config = text_format.Parse(
                f"sparse_optimizer {{ {text} constant_learning_rate {{}} }}"
                "dense_optimizer { sgd_optimizer { lr: 0 } constant_learning_rate {} }",
                TrainConfig(),
            )
            try:
                model = distribute(
                    Wrapped(module), train_config=config, device=device, kernels=kernels
                )
            except Unsupported:
                cells.append("-")
                continue
            cpu, wall = measure(model, batches, outputs, arguments.steps)
            cells.append(f"{cpu:.1f} ({wall:.1f})")
        print(f"{name:<22}{cells[0]:>18}{cells[1]:>18}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--steps", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with process_group(Options()) as device:
        for task in (pooled, unpooled):
            run(task, arguments, device)


if __name__ == "__main__":
    main()
