"""`torch.export` of a model or of its dense part, for any number of rows and steps."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from tzrec.deploy.trace import quiet
from tzrec.deploy.verify import parity_cases
from tzrec.errors import ExportError, TzrecError
from tzrec.models.precision import autocast

Tensors = dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Input:
    """A tensor that an exported program reads.

    Attributes:
        name: key in the dictionary.
        dtype: its type, as torch names it (``float32``).
        shape: its sizes; None = any.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class Exported:
    """A program and how to call it.

    Attributes:
        program: takes one dictionary of tensors.
        example: such a dictionary, of zeros.
        inputs: its tensors, in the program's order.
        outputs: names in the program's order.
    """

    program: torch.export.ExportedProgram
    example: Tensors
    inputs: list[Input]
    outputs: list[str]


def export_graph(
    module: fx.GraphModule,
    feed: Callable[[Tensors], Tensors],
    golden: Mapping[str, Tensor],
    *,
    mixed_precision: str = "",
) -> Exported:
    """Exports a graph of a dictionary of tensors.

    Which sizes are free is learnt from batches of several shapes.

    Args:
        module: name → tensor to output → tensor.
        feed: makes its input of a batch in parse keys.
        golden: a batch in parse keys.
        mixed_precision: autocast, ``BF16`` or ``FP16``.

    Raises:
        ExportError: torch.export cannot take the model, or not for any number of rows.
    """
    name = type(module).__name__
    example, free = _example([feed(batch) for batch in _batches(golden, feed)])
    device = next(iter(example.values())).device.type
    body = _Autocast(module, device, mixed_precision) if mixed_precision else module
    dynamic = {key: dict.fromkeys(dims, torch.export.Dim.AUTO) for key, dims in free.items()}
    try:
        with quiet(), _free_sizes():
            program = torch.export.export(body, (example,), dynamic_shapes=(dynamic,), strict=False)
    except Exception as error:
        raise ExportError(
            f"torch.export cannot take {name}: {_first_line(error)}",
            hint="export it with target torchscript",
        ) from error
    _check_free(program, free, name)
    inputs = [
        Input(
            key,
            str(value.dtype).removeprefix("torch."),
            tuple(None if i in free[key] else size for i, size in enumerate(value.shape)),
        )
        for key, value in example.items()
    ]
    return Exported(program, example, inputs, _output_names(module))


class _Autocast(nn.Module):
    def __init__(self, inner: nn.Module, device: str, mixed_precision: str) -> None:
        super().__init__()
        self.inner = inner
        self._device = device
        self._precision = mixed_precision

    def forward(self, data: Tensors) -> Tensors:
        with autocast(self._device, self._precision):
            outputs: Tensors = self.inner(data)
            return outputs


def _batches(golden: Mapping[str, Tensor], feed: Callable[[Tensors], Any]) -> Iterator[Tensors]:
    """Yields batches that differ in all that may differ."""
    yield dict(golden)
    yield {key: _twice(value) for key, value in golden.items()}
    yield parity_cases(dict(golden))["two rows without ids"]
    longer = _longer(golden)
    # A model may limit how long a history is.
    with contextlib.suppress(TzrecError):
        feed(longer)
        yield longer


def _twice(value: Tensor) -> Tensor:
    return torch.cat([value, value]) if value.dim() else value


def _longer(golden: Mapping[str, Tensor]) -> Tensors:
    """Returns the batch with twice as many ids in each row, and two more."""
    longer = dict(golden)
    for key, lengths in golden.items():
        name, _, part = key.rpartition(".")
        if part != "lengths":
            continue
        more = 2 * lengths.numel()
        longer[key] = 2 * lengths + 2
        for other, fill in (("values", 0), ("weights", 1), ("key_lengths", 1)):
            value = golden.get(f"{name}.{other}")
            if value is not None:
                filler = value.new_full((more, *value.shape[1:]), fill)
                longer[f"{name}.{other}"] = torch.cat([value, value, filler])
    return longer


def _example(batches: list[Tensors]) -> tuple[Tensors, dict[str, list[int]]]:
    """Returns an input of zeros, and which dimensions of it are free.

    Sizes 0 and 1 are special to torch.export; free dimensions have others in the example.
    """
    sizes: dict[tuple[int, ...], int] = {}
    spare = itertools.count(8)
    example: Tensors = {}
    free: dict[str, list[int]] = {}
    for name in sorted(batches[0]):
        shapes = [batch[name].shape for batch in batches]
        shape = list(shapes[0])
        free[name] = []
        for i in range(len(shape)):
            seen = tuple(other[i] for other in shapes)
            if len(set(seen)) > 1:
                free[name].append(i)
                shape[i] = sizes.setdefault(seen, seen[0] if seen[0] > 1 else next(spare))
        example[name] = torch.zeros(
            shape, dtype=batches[0][name].dtype, device=batches[0][name].device
        )
    return example, free


@contextlib.contextmanager
def _free_sizes() -> Iterator[None]:
    """Lets torch.export assume nothing of sizes: not that equal ones belong together, nor > 1."""
    from torch.fx.experimental import _config

    options: Any = _config
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        options.patch(use_duck_shape=False, backed_size_oblivious=True),
    ):
        yield


def _check_free(
    program: torch.export.ExportedProgram, free: Mapping[str, list[int]], name: str
) -> None:
    """Refuses a program that is for one number of rows or steps only."""
    inputs = set(program.graph_signature.user_inputs)
    placeholders = [
        node for node in program.graph.nodes if node.op == "placeholder" and node.name in inputs
    ]
    for node, (key, dims) in zip(placeholders, free.items(), strict=True):
        for dim in dims:
            size = node.meta["val"].shape[dim]
            if isinstance(size, int) or size.node.maybe_as_int() is not None:
                raise ExportError(
                    f"torch.export takes {name} for one size of {key!r} only "
                    f"({tuple(node.meta['val'].shape)}, dimension {dim})",
                    hint="a layer depends on the number of rows or steps; export it with "
                    "target torchscript",
                )


def _output_names(module: fx.GraphModule) -> list[str]:
    output: Any = next(node for node in module.graph.nodes if node.op == "output").args[0]
    return list(output)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
