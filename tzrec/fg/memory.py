"""What the allocator does with freed memory.

It is a setting of the whole process, so commands and worker processes make it where they start;
`FgHandler` in the process of somebody else never does.
"""

from __future__ import annotations

import ctypes
import functools

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_KEPT = 32 << 20  # the most that every glibc takes
_KEPT = 256 << 20


@functools.cache
def keep_freed_memory() -> bool:
    """Lets malloc keep up to 256 MiB of freed memory of this process for the next batch.

    By default glibc gives each large array back to the kernel, and the next batch's pages are
    mapped and zeroed anew, which takes longer than what is computed in them.

    Returns:
        Whether there is such a malloc; other systems are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another libc, another system
        return False
    return bool(
        mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT) == 1 and mallopt(_TRIM_THRESHOLD, _KEPT) == 1
    )
