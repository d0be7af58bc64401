"""The processes of a command."""

from __future__ import annotations

import contextlib

from tzrec.options import Options
from tzrec.training.distributed.process_group import process_group


def together(options: Options) -> contextlib.AbstractContextManager[object]:
    """Returns a context in which the processes know of each other; of one alone it is empty."""
    return process_group(options) if options.world_size > 1 else contextlib.nullcontext()
