"""Jumps of the loss, told from its noise and its fall."""

import collections
import math

import numpy as np

_WINDOW, _FEWEST = 100, 30
# Scaled so that the median absolute deviation of a normal distribution is its standard deviation.
_TO_SIGMA = 1.4826
_SIGMAS = 8.0
# Where losses hardly differ any more, a small step out of line is no spike.
_SMALLEST_SHARE = 0.1


class Spikes:
    """Looks at losses one after another.

    A loss is a spike that lies 8 deviations, and a tenth, above the median of the 100 before it.
    Median and median absolute deviation do not follow a few outliers, and a steep fall widens the
    deviation: neither hides the next spike, nor makes one. What lasts for several steps is one.

    Attributes:
      count: spikes so far.
    """

    def __init__(self, count: int = 0):
        self.count = count
        self._window = collections.deque(maxlen=_WINDOW)
        self._within = False

    def add(self, loss: float) -> tuple[float, float] | None:
        """Takes the next loss; one that is not finite is passed over.

        Returns:
          Median and deviation of the losses before, where a spike begins here.
        """
        if not math.isfinite(loss):
            return None
        median, deviation = self._usual()
        above = loss - median > max(_SIGMAS * deviation, _SMALLEST_SHARE * abs(median))
        begins = len(self._window) >= _FEWEST and above and not self._within
        self._within = above and (begins or self._within)
        self._window.append(loss)
        if not begins:
            return None
        self.count += 1
        return median, deviation

    def _usual(self) -> tuple[float, float]:
        if not self._window:
            return math.inf, 0.0
        losses = np.array(self._window)
        median = float(np.median(losses))
        return median, _TO_SIGMA * float(np.median(np.abs(losses - median)))
