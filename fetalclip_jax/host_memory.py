"""Memory that a program on a CPU uses again and again is kept instead of given back each time."""

import ctypes
import sys

# glibc's numbers of the options of `mallopt`.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST = 2**31 - 1


def keep() -> None:
    """Tells glibc to keep what is freed, up to 2 GiB.

    By default it gives large buffers back to the system after each use, and the next step faults
    them in again, page by page: on a CPU that can cost a step as much as its arithmetic. Elsewhere
    than on Linux with glibc nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(_MMAP_THRESHOLD, _LARGEST)
        library.mallopt(_TRIM_THRESHOLD, _LARGEST)
