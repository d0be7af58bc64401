"""``python -m tzrec.tools.create_faiss_index``: a FAISS index of a table of vectors.

``tzrec index`` makes one with its ids, measured recall and user tower in one directory.
"""

from __future__ import annotations

import argparse
import logging
import posixpath
import sys
import tempfile
from pathlib import Path
from typing import Any

from tzrec.errors import ConfigError
from tzrec.storage import file_system, open_file
from tzrec.tools.vector_flags import add_reader_type

logger = logging.getLogger("tzrec")

INDEX_FILE, ID_FILE = "faiss_index", "id_mapping"
TYPES = ("IVFFlatIP", "HNSWFlatIP", "IVFFlatL2", "HNSWFlatL2")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the interface."""
    parser.add_argument(
        "--embedding_input_path", required=True, metavar="FILES", help="table of ids and vectors"
    )
    parser.add_argument(
        "--index_output_dir", required=True, metavar="DIR", help="gets faiss_index and id_mapping"
    )
    parser.add_argument("--id_field", required=True, metavar="NAME", help="column of ids")
    parser.add_argument(
        "--embedding_field", required=True, metavar="NAME", help="column of vectors"
    )
    parser.add_argument("--index_type", default="IVFFlatIP", choices=TYPES)
    parser.add_argument(
        "--ivf_nlist", type=int, default=1000, metavar="N", help="lists of an IVF index"
    )
    parser.add_argument("--hnsw_M", type=int, default=32, metavar="N", help="links of an item")
    parser.add_argument(
        "--hnsw_efConstruction", type=int, default=200, metavar="N", help="candidates of a link"
    )
    parser.add_argument("--batch_size", type=int, default=1024, metavar="N", help="rows to read")
    add_reader_type(parser)


def run(args: argparse.Namespace) -> None:
    """Writes ``faiss_index``, and ``id_mapping`` with the id of item i in line i.

    Every row is an item, also one whose id comes again.

    Args:
        args: as `add_arguments` describes them.

    Raises:
        ConfigError: an argument is wrong.
        DataError: the table cannot be read.
        MissingDependencyError: FAISS is not installed.
    """
    from tzrec.retrieval import faiss_index
    from tzrec.retrieval.vectors import read_vectors

    for name in ("ivf_nlist", "hnsw_M", "hnsw_efConstruction", "batch_size"):
        if getattr(args, name) < (2 if name == "hnsw_M" else 1):
            raise ConfigError(f"--{name} is {getattr(args, name)}: too small")
    faiss_index.faiss_module()
    table = read_vectors(
        args.embedding_input_path,
        id_field=args.id_field,
        vector_field=args.embedding_field,
        reader_type=args.reader_type,
        batch_size=args.batch_size,
    )
    if table.vectors.ndim != 2:
        raise ConfigError(f"column {args.embedding_field!r} holds several vectors a row, not one")
    metric = "l2" if args.index_type.endswith("L2") else "ip"
    index: Any
    if args.index_type.startswith("IVF"):
        index = faiss_index.build_ivf(table.vectors, args.ivf_nlist, metric)
    else:
        index = faiss_index.build_hnsw(table.vectors, args.hnsw_M, args.hnsw_efConstruction, metric)
    ids = "".join(f"{one}\n" for one in table.ids.to_pylist())
    _write(args.index_output_dir, index, ids)
    logger.info(
        "wrote %s of %s vectors to %s", args.index_type, f"{len(table.ids):,}",
        args.index_output_dir,
    )  # fmt: skip


def _write(directory: str, index: Any, ids: str) -> None:
    from tzrec.retrieval import faiss_index

    system, inner = file_system(directory)
    system.makedirs(inner, exist_ok=True)
    with open_file(posixpath.join(directory, ID_FILE), "wb") as stream:
        stream.write(ids.encode())
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / INDEX_FILE
        faiss_index.save(index, local)
        system.put_file(str(local), posixpath.join(inner, INDEX_FILE))


def main(argv: list[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; None takes those of the process.

    Returns:
        The exit code.
    """
    # The layer of commands stands above the tools.
    from tzrec.cli.job import tool_command

    return tool_command("tzrec.tools.create_faiss_index", __doc__, add_arguments, run, argv)


if __name__ == "__main__":
    sys.exit(main())
