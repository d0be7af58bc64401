"""What the C library does with memory that was freed."""

from __future__ import annotations

import ctypes

from tzrec.options import allocator_is_chosen

# Parameters of glibc's mallopt, from <malloc.h>.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER, _LARGEST = -1, 2**31 - 1


def keep_freed_memory() -> bool:
    """Lets this process keep blocks below 2 GiB that it frees, and use them again.

    By default glibc gives blocks of 32 MiB and more back at once, and the top of its heap when it
    is free: each step of training then asks the system for the same activations again, page by
    page, which it fills with zeros (a third of the CPU time of a step with long histories).
    Memory in use does not grow, but it shrinks only when the process ends.

    Returns:
        Whether it was done: not where the C library is another one, or the environment has tuned
        its allocator (``MALLOC_…_THRESHOLD_``, ``GLIBC_TUNABLES``).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or allocator_is_chosen():
        return False
    done = [mallopt(_MMAP_THRESHOLD, _LARGEST), mallopt(_TRIM_THRESHOLD, _NEVER)]
    return all(done)
