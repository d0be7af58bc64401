"""``python -m tzrec.tools.onnx_dense``: the dense part of a trained model as ONNX."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from tzrec.errors import ExportError
from tzrec.tools.shards import logger


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument("--pipeline_config_path", required=True, metavar="CONFIG")
    parser.add_argument(
        "--checkpoint_path", metavar="DIR", help="latest, best or a directory (default: latest)"
    )
    parser.add_argument(
        "--output_dir",
        required=True,
        metavar="DIR",
        help="new directory; gets dense.onnx and the TorchScript that feeds it",
    )


def run(args: argparse.Namespace) -> None:
    """Writes the parts; the directory appears when they score like the model.

    Args:
        args: as `add_arguments` describes them.

    Raises:
        ExportError: the directory exists, or the model cannot be exported.
        MissingDependencyError: a package for ONNX is not installed.
        TzrecError: config or checkpoint are wrong.
    """
    import torch

    from tzrec.config import prepare
    from tzrec.deploy import onnx_dense, torchscript
    from tzrec.deploy.commands import restored_model
    from tzrec.deploy.parts import sample_parts
    from tzrec.models.wrappers import ScriptWrapper
    from tzrec.options import from_environment
    from tzrec.training.build import build_features
    from tzrec.training.checkpoint.find import resolve

    target = Path(args.output_dir).expanduser().absolute()
    if target.exists():
        raise ExportError(f"--output_dir {target} exists already", hint="name a new directory")
    config = prepare(args.pipeline_config_path).config
    checkpoint, _ = resolve(config.model_dir, args.checkpoint_path, config.export_config)
    features = build_features(config.data_config, config.feature_configs)
    model = restored_model(config, features, checkpoint).model
    parts = sample_parts(model, config, features, from_environment())
    work = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    try:
        for name, part in parts.items():
            (work / name).mkdir(parents=True, exist_ok=True)
            wrapper = ScriptWrapper(part.model)
            names = {feature.name for feature in part.features}
            inputs = {k: v for k, v in part.golden.items() if k.rpartition(".")[0] in names}
            with torchscript.inference_mode_of(wrapper), torch.inference_mode():
                found = onnx_dense.write(wrapper, inputs, work / name)
            worst = max(found.values(), default=0.0)
            logger.info("%s: largest difference %.3g", target / name, worst)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def main(argv: list[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; None takes those of the process.

    Returns:
        The exit code.
    """
    # The layer of commands stands above the tools.
    from tzrec.cli.job import tool_command

    return tool_command("tzrec.tools.onnx_dense", __doc__, add_arguments, run, argv)


if __name__ == "__main__":
    sys.exit(main())
