"""How this process takes memory: freed blocks are kept and used again, large ones come in large pages.

A training step frees as many megabytes as it takes. If they went back to the system and came again, every page would
be cleared and mapped anew, which in a virtual machine can take longer than the products that are computed in it.
"""

from __future__ import annotations

import ctypes
import os

# Of glibc's mallopt; the second is the largest it takes.
_TRIM_THRESHOLD, _TRIM_BYTES = -1, 2**28
_MMAP_THRESHOLD, _MMAP_BYTES = -3, 2**25


def keep_freed_memory() -> None:
    """Keep up to 256 MiB of freed blocks for the next ones, and ask for large pages; before torch's first tensor.

    Whatever the environment says of it (``THP_MEM_ALLOC_ENABLE``, ``MALLOC_TRIM_THRESHOLD_``, …) holds; where the C
    library is not glibc, nothing is done to it.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_TRIM_THRESHOLD, _TRIM_BYTES)
    mallopt(_MMAP_THRESHOLD, _MMAP_BYTES)
