"""All kernels, compiled by numba."""

from tzrec.fg.kernels.compiled_cross import bucket_cross, cross_text
from tzrec.fg.kernels.compiled_hashing import (
    bucket_ints,
    bucket_parts,
    bucket_prefixed,
    bucket_text,
    hash_text,
)
from tzrec.fg.kernels.compiled_maps import build_vocabulary, find_keys, lookup_vocabulary
from tzrec.fg.kernels.compiled_numbers import (
    format_floats,
    format_floats32,
    format_ints,
    parse_floats,
    parse_ints,
)
from tzrec.fg.kernels.compiled_segments import (
    combine,
    fill_empty_ids,
    fill_empty_numbers,
    take_first,
)
from tzrec.fg.kernels.compiled_text import concat, gather_text, split, split_pairs, survey

# NumPy alone is as fast here.
from tzrec.fg.kernels.plain_segments import bucket_boundaries, bucket_number
from tzrec.fg.kernels.plain_text import text_lengths

__all__ = [
    "bucket_boundaries",
    "bucket_cross",
    "bucket_ints",
    "bucket_number",
    "bucket_parts",
    "bucket_prefixed",
    "bucket_text",
    "build_vocabulary",
    "combine",
    "concat",
    "cross_text",
    "fill_empty_ids",
    "fill_empty_numbers",
    "find_keys",
    "format_floats",
    "format_floats32",
    "format_ints",
    "gather_text",
    "hash_text",
    "lookup_vocabulary",
    "parse_floats",
    "parse_ints",
    "split",
    "split_pairs",
    "survey",
    "take_first",
    "text_lengths",
]
