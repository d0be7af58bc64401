"""``python -m tzrec.tools.tdm.retrieval``: items for the rows of a table, by beam search."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from typing import Any

from tzrec.errors import ConfigError, DataError

logger = logging.getLogger("tzrec")

RECALL_IDS = "recall_ids"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the interface."""
    parser.add_argument(
        "--scripted_model_path", required=True, metavar="DIR", help="model/ of an exported TDM"
    )
    parser.add_argument("--predict_input_path", required=True, metavar="FILES", help="users")
    parser.add_argument("--predict_output_path", required=True, metavar="DIR")
    parser.add_argument(
        "--reserved_columns", metavar="NAMES", help="input columns to keep (comma list)"
    )
    parser.add_argument("--batch_size", type=int, metavar="N", help="rows at a time")
    parser.add_argument(
        "--recall_num", type=int, default=200, metavar="K", help="items of a row (default 200)"
    )
    parser.add_argument(
        "--n_cluster", type=int, default=2, metavar="N", help="children of a node (default 2)"
    )
    parser.add_argument(
        "--num_worker_per_level",
        type=int,
        default=1,
        metavar="N",
        help="threads that score the nodes of a level (default 1)",
    )
    parser.add_argument(
        "--tree_dir",
        metavar="DIR",
        help="directory with the tree's tables (default: the paths in the export's config)",
    )
    parser.add_argument("--is_profiling", action="store_true", help="write a profile")
    parser.add_argument("--debug_level", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--dataset_type", metavar="TYPE", help="ParquetDataset or CsvDataset")
    parser.add_argument(
        "--edit_config_json", metavar="JSON", help="changes to the export's config, as of predict"
    )
    parser.add_argument("--writer_type", metavar="TYPE", help="ParquetWriter or CsvWriter")


def run(args: argparse.Namespace) -> None:
    """Writes ``recall_ids`` and the reserved columns of every row, and logs the recall.

    Args:
        args: as `add_arguments` describes them.

    Raises:
        ConfigError: a flag has a value that it cannot have.
        ServingError: the export is not whole, or no tree belongs to it.
        DataError: the input or the tree cannot be read.
    """
    for name in ("recall_num", "num_worker_per_level"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name} {getattr(args, name)} is not at least 1")
    from tzrec.deploy.profile import profiled
    from tzrec.retrieval.tree_retriever import TreeRetriever

    retriever = TreeRetriever.load(
        args.scripted_model_path, tree_dir=args.tree_dir, threads=args.num_worker_per_level
    )
    if retriever.tree.branching > args.n_cluster:
        raise ConfigError(
            f"--n_cluster is {args.n_cluster}, but a node of the tree has "
            f"{retriever.tree.branching} children"
        )
    trace = f"{args.scripted_model_path}/predict_trace" if args.is_profiling else None
    with profiled(retriever.predictor.forward_batch, trace) as profile:
        _Run(args, retriever).write(profile.on_batch)


class _Run:
    """One pass over the input."""

    def __init__(self, args: argparse.Namespace, retriever: Any) -> None:
        from tzrec.deploy.commands import prediction_config, split_names

        self._args, self._retriever = args, retriever
        self._kept = split_names(args.reserved_columns)
        if RECALL_IDS in self._kept:
            raise ConfigError(f"{RECALL_IDS} would be written twice: do not reserve it")
        self._config = prediction_config(
            retriever.predictor.config,
            args.batch_size,
            args.dataset_type,
            args.edit_config_json,
        )
        self._num_rows = self._num_asked = self._num_hits = 0

    def write(self, on_batch: Any) -> None:
        from tzrec.datasets.dataset import create_writer
        from tzrec.options import from_environment
        from tzrec.retrieval.ranks import together
        from tzrec.training.peers import sum_over_ranks

        started, options = time.monotonic(), from_environment()
        path, kind = self._args.predict_output_path, self._args.writer_type
        with (
            together(options),
            self._loader() as loader,
            create_writer(path, kind, rank=options.rank) as writer,
        ):
            for batch in loader:
                if not batch.dummy:
                    writer.write(self._rows_of(batch))
                if on_batch is not None:
                    on_batch()
            own = (self._num_rows, self._num_asked, self._num_hits)
            num_rows, asked, found = map(sum_over_ranks, own)
            if not num_rows:
                raise DataError(f"{self._args.predict_input_path} has no rows")
        seconds = max(time.monotonic() - started, 1e-9)
        logger.info(
            "%s rows in %.1f s (%.0f rows/s) to %s",
            f"{self._num_rows:,}",
            seconds,
            self._num_rows / seconds,
            path,
        )
        if asked:
            logger.info("Recall: %.6f (%d rows)", found / asked, asked)

    def _loader(self) -> Any:
        from tzrec.constant import Mode
        from tzrec.options import from_environment
        from tzrec.retrieval.tree_retriever import reserved_of
        from tzrec.training import build

        retriever = self._retriever
        more = [*retriever.mixed_columns]
        item = retriever.tree.item_id_field
        path = self._args.predict_input_path
        # The row's own item is no input of the search; where it is there, the recall is told.
        if item in self._column_names(path):
            more.append(item)
        return build.build_loader(
            self._config,
            retriever.user_features,
            path,
            mode=Mode.PREDICT,
            options=from_environment(),
            reserved_columns=reserved_of(self._kept, more),
        )

    def _column_names(self, path: str) -> list[str]:
        """Returns the columns of the input, read as the config says."""
        from tzrec.datasets.dataset import get_dataset_class
        from tzrec.datasets.formats import format_of
        from tzrec.protos.data_pb2 import DatasetType

        data_config = self._config.data_config
        configured = DatasetType.Name(data_config.dataset_type)
        name = format_of(path, configured.removesuffix("Dataset"))
        dataset = get_dataset_class(f"{name}Dataset")
        reader = dataset.reader_class(path, **dataset.reader_options(data_config))
        names: list[str] = reader.schema.names
        return names

    def _rows_of(self, batch: Any) -> dict[str, Any]:
        """Returns the columns to write for a batch."""
        import torch

        from tzrec.deploy.batch_predict import num_rows_of
        from tzrec.retrieval.retriever import Retrieved
        from tzrec.retrieval.tree_retriever import hits

        retriever, k = self._retriever, self._args.recall_num
        rows = batch.reserves.get()
        columns = dict(zip(rows.schema.names, rows.columns, strict=True)) if rows else {}
        parsed = batch.to_dict(sparse_dtype=torch.int64)
        found = retriever.search(parsed, num_rows_of(batch), k, columns=columns)
        self._num_rows += len(found.positions)
        item = retriever.tree.item_id_field
        if item in columns:
            self._num_asked += len(found.positions)
            self._num_hits += int(hits(found, retriever.ids, columns[item]).sum())
        ids, _ = Retrieved(found, retriever.ids).columns()
        return {RECALL_IDS: ids} | {name: columns[name] for name in self._kept}


def main(argv: list[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; None takes those of the process.

    Returns:
        The exit code.
    """
    # The layer of commands stands above the tools.
    from tzrec.cli.job import tool_command

    return tool_command("tzrec.tools.tdm.retrieval", __doc__, add_arguments, run, argv)


if __name__ == "__main__":
    sys.exit(main())
