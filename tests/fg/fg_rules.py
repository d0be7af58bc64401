"""What the literal cases share: one feature of a few columns, and the comparison.

``h`` is the hash of a text modulo 100, checked against known values in `test_known_hashes`.
"""

import numpy as np
import pyarrow as pa

from tzrec.fg import FgHandler
from tzrec.fg.hashing import murmur_hash64a

GS = "\x1d"
ARROW = (pa.Array, pa.ChunkedArray)
STRING_MAP, NUMBER_MAP = pa.map_(pa.string(), pa.string()), pa.map_(pa.string(), pa.float32())


def h(*texts, buckets=100):
    return [murmur_hash64a(text.encode()) % buckets for text in texts]


def run(entry, columns, **options):
    kind = entry.pop("feature_type")
    entry = {"feature_type": kind, "feature_name": "f", **entry}
    arrays = {n: c if isinstance(c, ARROW) else pa.array(c) for n, c in columns.items()}
    return FgHandler({"features": [entry]}, **options).process_arrow(arrays)["f"]


def grouped(entry, columns, *, length=0, delim=";", name="s"):
    group = {"sequence_name": name, "sequence_length": length, "sequence_delim": delim}
    fg_json = {"features": [{**group, "features": [{"feature_name": "f", **entry}]}]}
    arrays = {n: c if isinstance(c, ARROW) else pa.array(c) for n, c in columns.items()}
    return FgHandler(fg_json).process_arrow(arrays)[f"{name}__f"]


def ids(column, **options):
    return run(
        {"feature_type": "id_feature", "expression": "user:c", "hash_bucket_size": 100, **options},
        {"c": column},
    )


def raw(column, **options):
    return run({"feature_type": "raw_feature", "expression": "item:c", **options}, {"c": column})


def check(found, values, lengths=None, key_lengths=None):
    if found.values.dtype == np.int64:
        assert found.values.tolist() == values
    else:
        np.testing.assert_allclose(
            found.values, np.array(values, np.float32).reshape(found.values.shape), rtol=1e-6
        )
    assert (found.lengths is None) == (lengths is None)
    if lengths is not None:
        assert found.lengths.tolist() == lengths
    if key_lengths is not None:
        assert found.key_lengths.tolist() == key_lengths


def steps(column, **options):
    entry = {"sequence_delim": ";", "sequence_length": 0, "default_value": "0", **options}
    return run(
        {
            "feature_type": "sequence_id_feature",
            "expression": "user:c",
            "hash_bucket_size": 100,
            **entry,
        },
        {"c": column},
    )
