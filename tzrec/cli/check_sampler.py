"""Looks at the tables of a sampler: are they there, and have they the columns that are read?"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from tzrec.config.problem import Problem
from tzrec.config.sampler_facts import SamplerFacts, sampler_of
from tzrec.config.validate.data import needed_columns
from tzrec.config.validate.frame import Context
from tzrec.datasets.files import expand_paths, open_input
from tzrec.datasets.samplers.tables import TableOptions, open_edges, open_nodes
from tzrec.errors import TzrecError
from tzrec.options import from_environment

# Looking at a CSV file reads it whole.
_MOST_BYTES = 32 << 20


def sampler_problems(context: Context) -> Iterator[Problem]:
    """Yields what is wrong with the tables of a config's sampler, as far as no rows are read."""
    sampler = sampler_of(context.config.data_config)
    for field in sampler.table_fields if sampler is not None else ():
        assert sampler is not None
        path = getattr(sampler.config, field)
        try:
            files = expand_paths(path, ".parquet" if path.endswith(".parquet") else "")
            if not sampler.is_tree and _is_cheap(files):
                _open(context, sampler, field)
        except TzrecError as error:
            yield Problem(f"{sampler.path}.{field}", error.message, error.hint)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            yield Problem(f"{sampler.path}.{field}", f"{path!r} cannot be read: {error}")


def _is_cheap(files: list[str]) -> bool:
    sizes = 0
    for path in files:
        if not path.endswith(".parquet"):
            with open_input(path) as stream:
                sizes += stream.size()
    return sizes <= _MOST_BYTES


def _open(context: Context, sampler: SamplerFacts, field: str) -> None:
    config, path = sampler.config, getattr(sampler.config, field)
    string_ids = config.string_ids or from_environment().string_ids
    options = TableOptions(config.field_delimiter or None, string_ids, config.weight_field or None)
    if field.endswith("edge_input_path"):
        open_edges(path, config.user_id_field, config.item_id_field, options)
    elif field.startswith("user"):
        open_nodes(path, config.user_id_field, options)
    else:
        read = {name for name, _, _ in needed_columns(context)}
        attributes = {name: pa.string() for name in sampler.attr_fields if name in read}
        open_nodes(path, config.item_id_field, options, attributes=attributes)
