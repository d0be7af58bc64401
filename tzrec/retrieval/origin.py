"""Which model vectors are of: users and items of two models cannot be compared.

The ``weights`` of an export or a checkpoint are `tzrec.deploy.fingerprint.fingerprint`. `tzrec
embed` writes them into its Parquet files, `tzrec index` into ``index.json``.
"""

from __future__ import annotations

import pyarrow.parquet as pq

from tzrec import storage
from tzrec.datasets.reader import BaseReader
from tzrec.errors import ConfigError

WEIGHTS = "tzrec.weights"


def weights_of(reader: BaseReader) -> str:
    """Returns the weights that the vectors of a table are of, empty where a file does not tell.

    Raises:
        ConfigError: they are of several models.
    """
    found: dict[str, str] = {}
    for path in reader.paths:
        told = b""
        if path.endswith(".parquet"):
            with storage.open_file(path) as file:
                told = (pq.read_metadata(file).metadata or {}).get(WEIGHTS.encode(), b"")
        found.setdefault(told.decode(), path)
    known = {weights: path for weights, path in found.items() if weights}
    if len(known) > 1:
        listed = ", ".join(f"{path} (weights {weights})" for weights, path in known.items())
        raise ConfigError(
            f"the vectors are of several models: {listed}",
            hint="embed all rows with one export or checkpoint, into a new directory",
        )
    return "" if "" in found else next(iter(known), "")


def refuse_other_model(items: str, users: str, *, what: str) -> None:
    """Refuses vectors of users and of items that are of different models.

    Args:
        items: weights of the item vectors, empty = not known.
        users: weights of the user tower or of user vectors, empty = not known.
        what: gives the user vectors, for the message.

    Raises:
        ConfigError: both are known, and differ.
    """
    if items and users and items != users:
        raise ConfigError(
            f"{what} is of another model than the items: its weights are {users}, theirs {items}",
            hint="take users and items of one export (or of the checkpoint that was exported)",
        )
