"""Flags that the tools on tables of vectors share."""

from __future__ import annotations

import argparse

_LATER = ("OdpsReader",)


def add_reader_type(parser: argparse.ArgumentParser) -> None:
    """Adds ``--reader_type``, and flags of MaxCompute that have no effect here."""
    parser.add_argument(
        "--reader_type",
        choices=("CsvReader", "ParquetReader", *_LATER),
        help="format of the input, where its name does not tell",
    )
    parser.add_argument("--odps_data_quota_name", help=argparse.SUPPRESS)


def add_writer_type(parser: argparse.ArgumentParser) -> None:
    """Adds ``--writer_type``."""
    parser.add_argument(
        "--writer_type",
        choices=("CsvWriter", "ParquetWriter"),
        help="format of the output (default: Parquet)",
    )
