"""The end of a process in the middle of whatever its main thread waits for."""

import multiprocessing
import os
import sys
import threading
import time
from typing import NoReturn

# Held by the thread that ends the process; the others wait for that end.
_leaving = threading.Lock()


def leave(line: str, status: int) -> NoReturn:
    """Says why, ends the processes that this one started, and itself at once.

    A computation or a write that waits for a process that is gone cannot be interrupted from
    Python, and an orderly end would wait for it.
    """
    if not _leaving.acquire(blocking=False):
        time.sleep(3600)
    if line:
        print(line, file=sys.stderr)
    for worker in multiprocessing.active_children():
        worker.terminate()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
