"""What the allocator does with freed memory.

It is a setting of the whole process, so commands, training jobs and worker processes make it where
they start; `FgHandler` and `Predictor` in the process of somebody else never do.
"""

from __future__ import annotations

import ctypes
import functools

from tzrec.options import allocator_is_chosen

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_KEPT = 32 << 20  # the most that every glibc takes
_KEPT = 256 << 20
_ANY_SIZE, _ALL = 2**31 - 1, -1


@functools.cache
def keep_freed_memory(*, without_bound: bool = False) -> bool:
    """Lets malloc keep freed memory of this process for the next batch.

    By default glibc gives each large array back to the kernel, and the next batch's pages are
    mapped and zeroed anew, which takes longer than what is computed in them: a third of the CPU
    time of a training step with long histories. Memory in use does not grow, but it shrinks less.

    Args:
        without_bound: keep all blocks below 2 GiB, as training does, which asks for the same
            ones in each step; else blocks up to 32 MiB, and 256 MiB of them.

    Returns:
        Whether it was done: not where the C library is another one, or the environment has tuned
        its allocator (``MALLOC_…_THRESHOLD_``, ``GLIBC_TUNABLES``).
    """
    if allocator_is_chosen():
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another libc, another system
        return False
    largest, kept = (_ANY_SIZE, _ALL) if without_bound else (_LARGEST_KEPT, _KEPT)
    done = [mallopt(_MMAP_THRESHOLD, largest), mallopt(_TRIM_THRESHOLD, kept)]
    return done == [1, 1]
