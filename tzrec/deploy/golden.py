"""The golden batch: inputs and the outputs of the trained model, kept beside the export."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tzrec.deploy.artefact import TensorSpec
from tzrec.errors import ServingError

_INPUT, _OUTPUT = "input:", "output:"


def save_golden(path: Path, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
    """Writes inputs and outputs as NumPy arrays."""
    arrays = {_INPUT + key: to_numpy(value) for key, value in inputs.items()}
    arrays |= {_OUTPUT + key: to_numpy(value) for key, value in outputs.items()}
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def load_golden(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Reads what `save_golden` wrote.

    Raises:
        ServingError: the file cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: torch.from_numpy(archive[key]) for key in archive.files}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ServingError(f"{path} cannot be read: {error}") from error
    inputs = {k.removeprefix(_INPUT): v for k, v in arrays.items() if k.startswith(_INPUT)}
    outputs = {k.removeprefix(_OUTPUT): v for k, v in arrays.items() if k.startswith(_OUTPUT)}
    return inputs, outputs


def to_numpy(value: Tensor) -> np.ndarray:
    """Returns a tensor as NumPy; 16-bit floats, which NumPy may lack, become float32."""
    value = value.detach().cpu()
    if value.dtype in (torch.bfloat16, torch.float16):
        value = value.float()
    return value.numpy()


def specs(tensors: Mapping[str, Tensor]) -> dict[str, TensorSpec]:
    """Returns types and shapes without the first dimension, in name order."""
    return {
        name: TensorSpec(str(value.dtype).removeprefix("torch."), tuple(value.shape[1:]))
        for name, value in sorted(tensors.items())
    }
