"""Steps that were handed to the devices, and when they finish."""

import collections
import concurrent.futures
import time
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
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "finished-steps")
        self._under_way = collections.deque()
        self._last = None

    def make_room(self) -> None:
        """Waits until another step may be started.

        Raises:
          what the devices raise, of a step before.
        """
        while len(self._under_way) >= self._most:
            self._under_way.popleft().result()

    def started(self, step: int, result: Any) -> None:
        """Notes a step, one of whose results is `result`."""
        self._last = self._thread.submit(self._wait, step, result)
        self._under_way.append(self._last)

    def busy_until(self) -> float:
        """When the devices ran out of work; now, if they have not."""
        if self._last is not None and not self._last.done():
            return time.time()
        return self.finished_at

    def close(self) -> None:
        """Waits for no step: one that hangs would be waited for for ever."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _wait(self, step: int, result: Any) -> None:
        jax.block_until_ready(result)
        self.finished, self.finished_at = step, time.time()
