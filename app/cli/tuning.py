"""How the interpreter and the C library share out time and memory in a process that serves or fits."""

import ctypes
import gc
import resource
import sys

_SWITCH_S = 0.001
_GARBAGE_OBJECTS = 10_000
_FILES = 65_536
_TRIM_THRESHOLD = -1  # of mallopt(3), as malloc.h numbers them
_MMAP_THRESHOLD = -3
_ARENA_MAX = -8
_ARENAS = 2
_KEPT_BYTES = 64 * 2**20
_LARGE_BYTES = 4 * 2**20


def tune() -> None:
    """Once, as the process begins.

    A thread that computes lets others go on after 1 ms, where the default is 5 ms: whoever waits for database or disk
    wants the interpreter for microseconds, and the event loop wants it soon.
    """
    sys.setswitchinterval(_SWITCH_S)
    _allow_many_files()
    _collect_less_garbage()
    _keep_freed_memory()


def _allow_many_files() -> None:
    """A connection is a file, and by default a process may have 1,024 of them, though it may ask for more."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if most == resource.RLIM_INFINITY else min(_FILES, most)
    if now != resource.RLIM_INFINITY and now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _collect_less_garbage() -> None:
    """Look for cycles more seldom than by default, and never among what was imported: little that we make needs it.

    With the default of 700 objects, a batch of thousands of fits has the collector run hundreds of times. With 50,000
    it stops all threads for up to a quarter of a second at a time, and what waits for it takes 8 MB.
    """
    gc.freeze()
    gc.set_threshold(_GARBAGE_OBJECTS, *gc.get_threshold()[1:])


def _keep_freed_memory() -> None:
    """Let arrays of up to 4 MB reuse what others freed, and keep up to 64 MB of that.

    By default glibc gives each back to the kernel and takes it anew, page by page: for 100,000 points that takes
    longer than judging them. All threads share two heaps, where the default is eight for each processor: what one
    thread frees, another one can use, and memory stays where it is. Does nothing where there is no glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(_ARENA_MAX, _ARENAS)
    mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
    mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
