"""Keeps the memory of one training step for the next.

A step allocates the same tensors again and again. glibc gives freed ones back to the system, which then has to fill
them with zeros, page by page, when they come back: a third of a million page faults in five seconds of small eager
steps, and 15 to 20% of their time (docs/performance.md).
"""

import ctypes

# Parameters of mallopt(3), as <malloc.h> numbers them, and values that keep the heap whole.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_NEVER = 2**31 - 1
_GROWTH = 2**28


def keep_memory() -> bool:
    """Tell glibc to keep what this process frees. Returns whether it did: other C libraries are left alone."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    settings = ((_MMAP_THRESHOLD, _NEVER), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _GROWTH))
    return all([mallopt(parameter, value) for parameter, value in settings])
