"""All kernels in NumPy, with the results of the compiled ones."""

from tzrec.fg.kernels.plain_cross import bucket_cross, cross_text
from tzrec.fg.kernels.plain_hashing import (
    bucket_ints,
    bucket_parts,
    bucket_prefixed,
    bucket_text,
    hash_text,
)
from tzrec.fg.kernels.plain_maps import build_vocabulary, find_keys, lookup_vocabulary
from tzrec.fg.kernels.plain_numbers import (
    format_floats,
    format_floats32,
    format_ints,
    parse_floats,
    parse_ints,
)
from tzrec.fg.kernels.plain_segments import (
    bucket_boundaries,
    bucket_number,
    combine,
    fill_empty_ids,
    fill_empty_numbers,
    take_first,
)
from tzrec.fg.kernels.plain_text import (
    concat,
    gather_text,
    split,
    split_pairs,
    survey,
    text_lengths,
)

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
