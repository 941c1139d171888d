"""What the processes of a job decide together, so that none goes a way of its own."""

from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from fetalclip_jax.run import is_lead


def as_lead_finds(decide: Callable[[], str | None]) -> str | None:
    """What the lead process decides, in all processes of a job."""
    if jax.process_count() == 1:
        return decide()
    text = np.zeros(256, np.uint8)
    if is_lead():
        said = (decide() or "").encode()[: text.size]
        text[: len(said)] = np.frombuffer(said, np.uint8)
    told = np.asarray(multihost_utils.broadcast_one_to_all(text)).astype(np.uint8)
    return told.tobytes().rstrip(b"\0").decode(errors="ignore") or None


def found_anywhere(failure: str | None) -> str | None:
    """`failure`, or that another process of the job has one."""
    if jax.process_count() == 1:
        return failure
    failed = np.asarray(multihost_utils.process_allgather(np.array(failure is not None)))
    if failed.any() and failure is None:
        return f"process {int(failed.argmax())} could not read it"
    return failure


def say(text: str) -> None:
    """Prints a line on the terminal, once for all processes."""
    if is_lead():
        print(text, flush=True)
