"""``tzrec predict``."""

from __future__ import annotations

import argparse
from pathlib import Path

from tzrec.cli.console import UsageError
from tzrec.cli.job import check_early, importing, start
from tzrec.cli.parser import add_edit_json, add_edits, at_least

DESCRIPTION = (
    "Predicts every row of a table, in order. MODEL is an exported directory, or a config\n"
    "file, which predicts with the newest checkpoint of its run."
)
EXAMPLES = """\
  tzrec predict run/export --input 'data/test-*.parquet' --output out
  tzrec predict run/export --input test.csv --output out --reserved-columns user_id,item_id
  tzrec predict run/pipeline.config --input test.parquet --output out --output-columns probs"""

_PARTS = ("embedding", "item", "model", "user")
_SCRIPTED_ONLY = ("predict_threads", "is_profiling", "debug_level")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``tzrec predict``."""
    parser.add_argument("model", nargs="?", metavar="MODEL", help="exported directory or config")
    parser.add_argument("--scripted-model-path", metavar="DIR", help=argparse.SUPPRESS)
    parser.add_argument("--pipeline-config-path", metavar="CONFIG", help=argparse.SUPPRESS)
    parser.add_argument(
        "--input",
        "--predict-input-path",
        dest="predict_input_path",
        metavar="FILES",
        required=True,
        help="rows to predict (comma list of globs)",
    )
    parser.add_argument(
        "--output",
        "--predict-output-path",
        dest="predict_output_path",
        metavar="DIR",
        required=True,
        help="directory for part-0.parquet or part-0.csv",
    )
    parser.add_argument(
        "--checkpoint-path", metavar="DIR", help="with a config: which checkpoint (default: newest)"
    )
    add_table_arguments(parser)
    add_edits(parser)
    add_edit_json(parser)


def add_table_arguments(parser: argparse.ArgumentParser, *, dash: str = "-") -> None:
    """Adds the flags about rows and columns.

    Args:
        parser: gets the flags.
        dash: what joins the words of a flag.
    """

    def flag(name: str) -> str:
        return "--" + name.replace("-", dash)

    parser.add_argument(
        flag("reserved-columns"),
        metavar="NAMES",
        help="input columns to keep (comma list, ALL_COLUMNS or ALL_EFFECTIVE_COLUMNS)",
    )
    parser.add_argument(
        flag("output-columns"), metavar="NAMES", help="predictions to write (default: all)"
    )
    parser.add_argument(flag("batch-size"), type=at_least(1), metavar="N", help="rows per batch")
    parser.add_argument(
        flag("predict-threads"), type=at_least(1), metavar="N", help="threads (exported model only)"
    )
    parser.add_argument(
        flag("is-profiling"), action="store_true", help="write a profile (exported model only)"
    )
    parser.add_argument(
        flag("debug-level"),
        type=at_least(0),
        default=0,
        metavar="N",
        help="above 0: add a column __features__ with the parsed inputs (exported model only)",
    )
    parser.add_argument(
        flag("dataset-type"), metavar="TYPE", help="ParquetDataset or CsvDataset (default: by name)"
    )
    parser.add_argument(
        flag("writer-type"), metavar="TYPE", help="ParquetWriter or CsvWriter (default: as input)"
    )
    parser.add_argument(
        flag("predict-steps"), type=at_least(1), metavar="N", help="stop after N batches"
    )


def run(args: argparse.Namespace) -> int:
    """Predicts."""
    _sort_out(args)
    start()
    predict_with(args, edits=args.edits)
    return 0


def _sort_out(args: argparse.Namespace) -> None:
    """Says whether MODEL is an export or a config."""
    if args.model and (args.scripted_model_path or args.pipeline_config_path):
        raise UsageError("tzrec predict: give MODEL once")
    if args.model:
        path = Path(args.model)
        if path.is_dir() or "://" in args.model:
            args.scripted_model_path = args.model
        elif path.exists():
            args.pipeline_config_path = args.model
        else:
            raise UsageError(
                f"tzrec predict: {args.model!r} is neither an exported directory nor a config file"
            )
    if args.scripted_model_path and not args.pipeline_config_path and args.edits:
        raise UsageError("tzrec predict: --set is for configs; an export carries its own config")


def predict_with(args: argparse.Namespace, *, edits: list[str] | None = None) -> None:
    """Predicts with a checkpoint when a config is given, else with an exported model.

    Raises:
        UsageError: neither is given, or a flag does not fit the way that was chosen.
    """
    shared = {
        "reserved_columns": args.reserved_columns,
        "output_columns": args.output_columns,
        "batch_size": args.batch_size,
        "dataset_type": args.dataset_type,
        "writer_type": args.writer_type,
        "edit_config_json": args.edit_config_json,
        "predict_steps": args.predict_steps,
    }
    if args.pipeline_config_path:
        _only_with(args, _SCRIPTED_ONLY, "an exported model")
        json = args.edit_config_json
        check_early(
            args.pipeline_config_path, edits=edits or (), edit_config_json=json, for_serving=True
        )
        with importing():
            from tzrec.main import predict_checkpoint

        predict_checkpoint(
            args.pipeline_config_path,
            args.predict_input_path,
            args.predict_output_path,
            checkpoint_path=args.checkpoint_path,
            edits=edits or (),
            **shared,
        )
        return
    if not args.scripted_model_path:
        raise UsageError(
            "which model? give an exported directory (--scripted_model_path) "
            "or a config (--pipeline_config_path)"
        )
    _only_with(args, ("checkpoint_path",), "a config")
    _is_export(args.scripted_model_path)
    with importing():
        from tzrec.main import predict

    predict(
        args.predict_input_path,
        args.predict_output_path,
        args.scripted_model_path,
        is_profiling=args.is_profiling,
        debug_level=args.debug_level,
        predict_threads=args.predict_threads,
        **shared,
    )


def _only_with(args: argparse.Namespace, names: tuple[str, ...], what: str) -> None:
    for name in names:
        if getattr(args, name):
            raise UsageError(f"--{name} works with {what} only")


def _is_export(path: str) -> None:
    if "://" not in path and not _holds_model(Path(path)):
        parts = [name for name in _PARTS if _holds_model(Path(path) / name)]
        if parts:
            raise UsageError(
                f"{path!r} is an export in parts: {', '.join(parts)}",
                hint=f"name one of them: {Path(path) / parts[-1]}",
            )
        raise UsageError(
            f"{path!r} holds no exported model (no scripted_model.pt)",
            hint="tzrec export CONFIG --export-dir DIR makes one",
        )


def _holds_model(directory: Path) -> bool:
    # A compiled export has no scripted_model.pt, one that is broken may have no manifest.
    return any((directory / name).is_file() for name in ("manifest.json", "scripted_model.pt"))
