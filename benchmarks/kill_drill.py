"""Does a run that is killed again and again end as one that was left alone?

    python benchmarks/kill_drill.py --kills 30
    python benchmarks/kill_drill.py --kills 30 --signal TERM    # saved, status 0, no step lost

A small experiment on the phantom is trained twice: undisturbed, and killed at random moments of
start-up, of steps and of saves, each time started again by the same command. Parameters, their
average, the optimiser's state and the logged losses of the two must be bitwise the same; the exit
status says whether they are. A kill costs a start of the program: some ten seconds.
"""

import argparse
import collections
import hashlib
import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
import orbax.checkpoint as ocp

_CONFIG = """
from fetalclip_jax.config import default_config

def get_config():
    config = default_config()
    config.model.vision_cfg.update({{"image_size": 32, "width": 32, "layers": 2, "head_width": 16}})
    config.model.text_cfg.update({{"width": 32, "heads": 2, "layers": 2}})
    config.data.phantom.update({{"train_images": 48, "pool_images": 12, "test_images": 12}})
    config.train.update({{
        "steps": {steps}, "global_batch_size": 16, "checkpoint_every": 4, "log_every": 1,
        "ema_decay": 0.9,
    }})
    config.optimizer.warmup_steps = 2
    return config.lock()
"""
_PHASES = ("start", "step", "save")
# Each kill leaves at least one save behind it, or the run would not advance.
_STEPS_PER_KILL = 16
_PATIENCE_SECONDS = 300


class Drill:
    """One run, and what happened to it.

    Attributes:
      counts: phase -> kills that fell into it.
      statuses: exit status -> how often a signal ended in it.
      lost: steps that were done and not saved, over all kills.
    """

    def __init__(self, folder: pathlib.Path, name: str):
        self.workdir = folder / name
        self._command = [sys.executable, "-m", "fetalclip_jax.cli", "train"]
        self._command += ["--config", str(folder / "experiment.py"), "--workdir", str(self.workdir)]
        self._log = (folder / f"{name}.log").open("a")
        self.counts, self.statuses = collections.Counter(), collections.Counter()
        self.lost = 0

    def start(self) -> subprocess.Popen:
        return subprocess.Popen(self._command, stdout=self._log, stderr=subprocess.STDOUT)

    def finish(self) -> float:
        """Trains to the end; the seconds it took."""
        begin = time.time()
        status = self.start().wait()
        if status:
            raise SystemExit(f"training ended with status {status}; see {self._log.name}")
        return time.time() - begin

    def kill(self, number: int, phase: str, draw: random.Random, start_seconds: float) -> None:
        """Starts it and ends it at a random moment of `phase`."""
        process, logged = self.start(), self.last_logged()
        if phase == "start":
            # Not after it: other work on the machine makes some starts shorter.
            end = time.time() + draw.uniform(0.0, start_seconds)
            self._wait(process, lambda: time.time() > end or self.last_logged() > logged)
        else:
            # Past the saves that make this start count, then at a step or within a save.
            self._wait(process, lambda: self.last_logged() > logged and self.last_saved() > logged)
            time.sleep(draw.uniform(0.0, 0.5))
            if phase == "save":
                self._wait(process, self.is_saving)
                time.sleep(draw.uniform(0.0, 0.1))
        process.send_signal(number)
        self.statuses[process.wait()] += 1
        fell = "step" if self.last_logged() > logged else "start"
        self.counts["save" if self.is_saving() else fell] += 1
        self.lost += max(self.last_logged() - self.last_saved(), 0)

    def _wait(self, process: subprocess.Popen, condition) -> None:
        deadline = time.time() + _PATIENCE_SECONDS
        while not condition():
            if process.poll() is not None:
                raise SystemExit(f"training ended before it was killed; see {self._log.name}")
            if time.time() > deadline:
                process.kill()
                raise SystemExit(f"training does not advance; see {self._log.name}")
            time.sleep(0.002)

    def losses(self) -> list[tuple[int, float]]:
        """(step, loss) of every line of the log that can be read."""
        found, path = [], self.workdir / "metrics.jsonl"
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                values = json.loads(line)
            except ValueError:  # the line that was being written
                continue
            if "loss" in values:
                found.append((values["step"], values["loss"]))
        return found

    def last_logged(self) -> int:
        return max((step for step, _ in self.losses()), default=0)

    def last_saved(self) -> int:
        names = (path.name for path in (self.workdir / "checkpoints").glob("*"))
        return max((int(name) for name in names if name.isdigit()), default=0)

    def is_saving(self) -> bool:
        return any((self.workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))

    def digests(self) -> dict[str, str]:
        """SHA-256 of each part of the last checkpoint."""
        folder = (self.workdir / "checkpoints" / str(self.last_saved())).absolute()
        with ocp.StandardCheckpointer() as reader:
            return {
                part: _digest(reader.restore(folder / part))
                for part in ("params", "ema", "optimizer")
            }


def _digest(tree) -> str:
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf))
    return digest.hexdigest()


def drill(folder: pathlib.Path, kills: int, number: int, seed: int) -> bool:
    """Trains twice and says what happened; whether both ended the same."""
    steps = _STEPS_PER_KILL * kills + 20
    (folder / "experiment.py").write_text(_CONFIG.format(steps=steps))
    left_alone, killed = Drill(folder, "left_alone"), Drill(folder, "killed")
    print(f"{steps} steps, a save every 4; undisturbed: {left_alone.finish():.0f} s", flush=True)
    begin = time.time()
    left_alone.finish()  # nothing to do: what a start takes
    start_seconds = time.time() - begin
    print(f"a start takes {start_seconds:.1f} s", flush=True)
    draw = random.Random(seed)
    phases = [_PHASES[index % len(_PHASES)] for index in range(kills)]
    draw.shuffle(phases)
    for index, phase in enumerate(phases):
        killed.kill(number, phase, draw, start_seconds)
        print(
            f"{index + 1}/{kills} killed in {phase}: {killed.last_logged()} steps logged, "
            f"{killed.last_saved()} saved",
            flush=True,
        )
    killed.finish()
    print(f"kills: {kills} ({', '.join(f'{n} in {p}' for p, n in sorted(killed.counts.items()))})")
    statuses = ", ".join(f"{n} x {status}" for status, n in sorted(killed.statuses.items()))
    print(f"exit statuses: {statuses}; steps done again: {killed.lost}")
    same = True
    alone, here = left_alone.digests(), killed.digests()
    for part, digest in alone.items():
        same &= digest == here[part]
        print(f"{part}: {digest[:16]} and {here[part][:16]}")
    logged = killed.losses() == left_alone.losses()
    print(f"losses of {len(killed.losses())} steps: {'the same' if logged else 'DIFFERENT'}")
    print("bitwise the same" if same and logged else "DIFFERENT")
    # Who is asked to end does so in good order.
    expected = 0 if number == signal.SIGTERM else -number
    orderly = set(killed.statuses) == {expected}
    if not orderly:
        print(f"a process ended with another status than {expected}")
    return same and logged and orderly


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        number = signal.Signals[f"SIG{arguments.signal}"]
        return 0 if drill(pathlib.Path(folder), arguments.kills, number, arguments.seed) else 1


if __name__ == "__main__":
    sys.exit(main())
