"""What a user sees of training: a bar on a terminal, lines in a log file."""

import sys
from collections.abc import Mapping

from tqdm import tqdm


class Progress:
    """Shows how far a run is.

    On a terminal a bar moves with every step; elsewhere there is a whole line each time numbers
    are logged, and nothing is ever redrawn.

    Args:
      first: steps done before.
      last: steps in all.
      bar: whether to draw a bar; by default whether the error stream is a terminal.
      silent: shows no progress; what is said is said nevertheless.
    """

    def __init__(self, first: int, last: int, *, bar: bool | None = None, silent: bool = False):
        self._last, self._silent = last, silent
        self._bar = None
        if (sys.stderr.isatty() if bar is None else bar) and not silent:
            self._bar = tqdm(initial=first, total=last, desc="training", unit="step")

    def step(self) -> None:
        """One step more is under way."""
        if self._bar is not None:
            self._bar.update()

    def numbers(self, step: int, values: Mapping[str, float], seconds_left: float) -> None:
        """Shows logged metrics, of which `images_per_second` and `data_wait_share` are needed."""
        parts = [f"loss {values['loss']:.3f}"] if "loss" in values else []
        parts.append(f"{values['images_per_second']:.4g} pairs/s")
        parts.append(f"data wait {100 * values['data_wait_share']:.1f} %")
        if "mfu" in values:
            parts.append(f"MFU {100 * values['mfu']:.1f} %")
        if self._bar is not None:
            self._bar.set_postfix_str("  ".join(parts))
        elif not self._silent:
            eta = [f"eta {clock_time(seconds_left)}"] if step < self._last else []
            print("  ".join([f"step {step}/{self._last}", *parts, *eta]), flush=True)

    def say(self, line: str) -> None:
        """Prints a line, above the bar where there is one."""
        if self._bar is not None:
            self._bar.write(line)
        else:
            print(line, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def clock_time(seconds: float) -> str:
    """ "2:41", or "1:02:41" from an hour on."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
