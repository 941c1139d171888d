"""Where numbers go while training: JSON lines, TensorBoard events, and the process's own cost."""

import json
import pathlib
import resource
import sys

from tensorboardX import SummaryWriter

from fetalclip_jax.run import Run, is_lead, write_text


class MetricsWriter:
    """Appends to `<workdir>/metrics.jsonl` and to TensorBoard event files, in the lead process.

    Args:
      resume_step: lines logged after this step belong to work that was lost with the process;
        they are dropped, so that every step appears once.
    """

    def __init__(self, workdir: pathlib.Path, resume_step: int = 0):
        self._file = None
        if not is_lead():
            return
        run = Run(workdir)
        kept = []
        if run.metrics.exists() and resume_step:
            for line in run.metrics.read_text().splitlines():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:  # the line a killed process was writing
                    continue
                if record["step"] <= resume_step:
                    kept.append(line + "\n")
        write_text(run.metrics, "".join(kept))
        self._file = run.metrics.open("a")
        self._events = SummaryWriter(str(run.tensorboard), purge_step=resume_step + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        if self._file is None:
            return
        values = {k: float(v) for k, v in values.items()}
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        if self._file is None:
            return
        self._file.close()
        self._events.close()


def peak_rss_gib() -> float:
    """Peak resident memory in GiB of this process or of its largest finished child."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kibibytes on Linux
    peak = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return peak * unit / 2**30
