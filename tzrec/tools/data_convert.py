"""``tzrec data convert``: public data sets as our input, with a config that runs."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from tzrec.errors import DataError
from tzrec.tools.convert.columns import Converted

# Name -> module with FILES and convert().
DATASETS = {
    "frappe": "tzrec.tools.convert.frappe",
    "census_income": "tzrec.tools.convert.census_income",
    "ml-1m": "tzrec.tools.convert.movielens",
}


def add_arguments(
    parser: argparse.ArgumentParser,
) -> argparse._SubParsersAction[argparse.ArgumentParser]:
    """Adds ``convert`` to ``tzrec data``; returns what takes further sub-commands."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    convert = actions.add_parser(
        "convert",
        help="make train, valid and test Parquet files and a config from a public data set",
    )
    convert.add_argument("dataset", choices=sorted(DATASETS), help="which data set")
    convert.add_argument("input", metavar="IN", help="directory with its files")
    convert.add_argument("output", metavar="OUT", help="directory to write to")
    return actions


def run(args: argparse.Namespace) -> int:
    """Converts a data set and says what came out.

    Args:
        args: as `add_arguments` describes them.

    Returns:
        0.

    Raises:
        DataError: an input file is missing or has another shape.
    """
    converted = convert(args.dataset, Path(args.input), Path(args.output))
    sys.stdout.write(describe(args.dataset, converted, Path(args.output)))
    return 0


def convert(dataset: str, source: Path, output: Path) -> Converted:
    """Converts the files in ``source`` and writes the result to ``output``.

    Args:
        dataset: a key of `DATASETS`.
        source: directory with the files that the data set is published in.
        output: gets ``train.parquet valid.parquet test.parquet``, ``features.config`` (the
            features, to be copied) and ``{dataset}.config`` (a whole config).

    Returns:
        What was written.

    Raises:
        DataError: an input file is missing or has another shape.
    """
    module = importlib.import_module(DATASETS[dataset])
    missing = [name for name in module.FILES if not (source / name).is_file()]
    if missing:
        raise DataError(
            f"{source}: has no {', '.join(missing)}",
            hint=f"{dataset} consists of {', '.join(module.FILES)}",
        )
    if output.resolve() == source.resolve():
        raise DataError(f"{output}: is the input itself; name another directory")
    converted: Converted = module.convert(source)
    converted.write(dataset, output)
    return converted


def describe(dataset: str, converted: Converted, output: Path) -> str:
    """Returns sizes, vocabularies, the features as config text, and what to do next."""
    rows = [
        f"  {f'{part}.parquet':<16} {table.num_rows:>10,} rows"
        for part, table in converted.parts.items()
    ]
    sizes = [f"  {feature.name:<20} {feature.size}" for feature in converted.features]
    return "\n".join(
        [
            f"{output}:",
            *rows,
            f"labels: {', '.join(converted.labels)}",
            "features:",
            *sizes,
            "",
            f"as config text ({output / 'features.config'}):",
            converted.features_text(),
            f"next: tzrec train {output / f'{dataset}.config'}",
            "",
        ]
    )
