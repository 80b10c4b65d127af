"""How the C library hands out the memory of CPU tensors.

Training frees and allocates the same sizes over and over. By default glibc gives large blocks
back to the system at once, and the next allocation pays for fresh pages: on a virtual machine
that costs several times what the operator itself does.
"""

from __future__ import annotations

import ctypes
import platform

__all__ = ["keep_freed_memory"]

# Parameters of mallopt in glibc's malloc.h.
_TRIM_THRESHOLD = -1
_MMAP_MAX = -4
_LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process reuse the memory of freed tensors instead of returning it.

    Large blocks come from the heap instead of mappings of their own, and the heap does not
    shrink. The process then holds what it held at its peak, until it ends.

    Returns:
        True if the C library is glibc and took the setting; elsewhere nothing changes.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, _LARGEST_INT))
