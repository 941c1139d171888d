"""Steps that were handed to the devices, and when they finish."""

import collections
import queue
import threading
import time
from concurrent.futures import Future
from typing import Any

import jax


class Flight:
    """Steps under way: enough that devices never wait, few enough that batches do not pile up.

    Args:
      first: steps done before.
      most: at once; by default two. On a CPU one, for its programs share its threads: two that
        both wait for all their devices may wait for ever.

    Attributes:
      finished: number of the last step that finished; that it began from before the first.
      finished_at: `time.time()` when it did.
    """

    def __init__(self, first: int, most: int | None = None):
        self._most = most or (1 if jax.default_backend() == "cpu" else 2)
        self.finished, self.finished_at = first, time.time()
        self._under_way: collections.deque[Future] = collections.deque()
        self._last: Future | None = None
        self._started: queue.SimpleQueue = queue.SimpleQueue()
        # A daemon: where a device hangs, a program that ends must not wait for it.
        threading.Thread(target=self._run, name="finished-steps", daemon=True).start()

    def make_room(self) -> None:
        """Waits until another step may be started.

        Raises:
          what the devices raise, of a step before.
        """
        while len(self._under_way) >= self._most:
            self._under_way.popleft().result()

    def started(self, step: int, result: Any) -> None:
        """Notes a step, one of whose results is `result`."""
        self._last = Future()
        self._under_way.append(self._last)
        self._started.put((step, result, self._last))

    def busy_until(self) -> float:
        """When the devices ran out of work; now, if they have not."""
        if self._last is not None and not self._last.done():
            return time.time()
        return self.finished_at

    def close(self) -> None:
        """Waits for no step."""
        self._started.put(None)

    def _run(self) -> None:
        while (item := self._started.get()) is not None:
            step, result, future = item
            try:
                jax.block_until_ready(result)
            except Exception as error:  # of the device; told to whoever asks for room
                future.set_exception(error)
            else:
                self.finished, self.finished_at = step, time.time()
                future.set_result(None)
