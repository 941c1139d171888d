"""Steps that were handed to the devices, and when they finish."""

import collections
import concurrent.futures
import time
from typing import Any

import jax

# Enough that a device never waits for its next step, few enough that batches do not pile up.
_MOST = 2


class Flight:
    """Steps under way. The loop goes ahead of the devices by two steps, and no further.

    Attributes:
      finished: number of the last step that finished; that it began from before the first.
      finished_at: `time.time()` when it did.
    """

    def __init__(self, first: int):
        self.finished, self.finished_at = first, time.time()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "finished-steps")
        self._under_way = collections.deque()

    def started(self, step: int, result: Any) -> None:
        """Notes a step, one of whose results is `result`.

        Raises:
          what the devices raise, of a step before.
        """
        self._under_way.append(self._thread.submit(self._wait, step, result))
        while len(self._under_way) > _MOST:
            self._under_way.popleft().result()

    def busy_until(self) -> float:
        """When the devices ran out of work; now, if they have not."""
        if self._under_way and not self._under_way[-1].done():
            return time.time()
        return self.finished_at

    def close(self) -> None:
        """Waits for no step: one that hangs would be waited for for ever."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _wait(self, step: int, result: Any) -> None:
        jax.block_until_ready(result)
        self.finished, self.finished_at = step, time.time()
