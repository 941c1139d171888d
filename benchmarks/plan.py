"""Is the memory a plan states the memory a run takes? And the table of docs/scaling.md.

    python benchmarks/plan.py [--devices 8] [--batch 160] [--remat none full]
    pip install -e '.[plan]'; python benchmarks/plan.py --table [--compile]

The memory of simulated CPU devices is compared with what the process allocates while it steps: the
most that glibc says is in use of it (asked every few milliseconds), less what was before there were
state and batch. Programs are compiled before that. Beside it is how much more of the process is
resident, in which the stacks and scratch pages of some dozens of threads are too.

The table lists plans of `configs/fetalclip_vitl14.py`. A cell that has not been compiled by these
versions of code and compiler says so; `--compile` compiles what is missing, some minutes each.
"""

import argparse
import contextlib
import ctypes
import dataclasses
import gc
import json
import os
import pathlib
import subprocess
import sys
import threading

CONFIG = pathlib.Path(__file__).parent.parent / "configs" / "fetalclip_vitl14.py"
TABLE_CHIPS = (8, 16, 32, 64, 128, 256, 512)
KINDS = ("v5e", "v5p", "v6e")
BATCHES = (32_768, 1_048_576)


def experiment(batch: int, remat: str, micro_batches: int):
    """A model whose state and activations are each some hundred MiB on 8 devices."""
    from fetalclip_jax.config import default_config

    config = default_config()
    config.model.vision_cfg.update({"layers": 3, "width": 384})
    config.model.text_cfg.update({"layers": 2, "width": 384, "heads": 6})
    config.compute.remat = remat
    config.train.update({"global_batch_size": batch, "micro_batches": micro_batches})
    return config.lock()


class InUse(ctypes.Structure):
    """glibc's `struct mallinfo2`, over all of its arenas."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def in_use(libc: ctypes.CDLL) -> int:
    """Bytes that this process has from malloc."""
    found = libc.mallinfo2()
    return found.uordblks + found.hblkhd


@contextlib.contextmanager
def most_in_use(libc: ctypes.CDLL):
    """A list whose one element is, after the block, the most bytes that were in use within it."""
    most, over = [in_use(libc)], threading.Event()

    def watch() -> None:
        while not over.wait(0.002):
            most[0] = max(most[0], in_use(libc))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


def measured(batch: int, remat: str, micro_batches: int) -> tuple[int, int, int]:
    """Bytes that a plan states for all devices, that are allocated, and that become resident."""
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = InUse
    libc.mallopt(-3, 2**16)  # M_MMAP_THRESHOLD: a buffer of its own for each array
    import jax
    import numpy as np

    from fetalclip_jax.parallel import sharding
    from fetalclip_jax.parallel.mesh import make_mesh
    from fetalclip_jax.planning import compiled, plan, store
    from fetalclip_jax.training import program

    config = experiment(batch, remat, micro_batches)
    stated = plan.read(
        config,
        compiled.compile_step(config, jax.devices()),
        store.Target(None, jax.device_count()),
        None,
    )
    mesh = make_mesh(**config.mesh)
    built = program.build(config, mesh)
    shapes = program.abstract_batch(config, mesh)
    program_of_step = built.train_step.lower(built.abstract, shapes).compile()
    step = dataclasses.replace(built.train_step, compiled=program_of_step)
    local = {name: np.zeros(one.shape, one.dtype) for name, one in shapes.items()}
    local["tokens"][:, -1] = config.model.text_cfg.vocab_size - 1  # the end of text

    def run() -> None:
        state, placed = built.new_state(), sharding.global_batch(local, mesh)
        jax.block_until_ready((state, placed))
        pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
        jax.block_until_ready(step(state, placed))

    run()  # what threads and libraries take once is no part of a step
    gc.collect()
    libc.malloc_trim(0)
    before = in_use(libc), resident("VmRSS")
    with most_in_use(libc) as most:
        run()
    grown = resident("VmHWM") - before[1]
    return stated.memory["total"] * jax.device_count(), most[0] - before[0], grown


def resident(name: str) -> int:
    """A size of /proc/self/status in bytes."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise ValueError(f"/proc/self/status has no {name}")


def memory(arguments) -> None:
    print("| devices | batch | micro-batches | remat | stated, MiB | allocated, MiB |", end="")
    print(" stated / allocated | resident, MiB |\n|" + "---|" * 8)
    for remat in arguments.remat:
        for parts in arguments.micro_batches:
            command = [sys.executable, __file__, "--alone", "--batch", str(arguments.batch)]
            command += ["--remat", remat, "--micro-batches", str(parts)]
            count = f"--xla_force_host_platform_device_count={arguments.devices}"
            environment = dict(os.environ, JAX_PLATFORMS="cpu", XLA_FLAGS=count)
            said = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
            stated, found, grown = json.loads(said.stdout.splitlines()[-1])
            print(
                f"| {arguments.devices} | {arguments.batch} | {parts} | {remat} | "
                f"{stated / 2**20:.0f} | {found / 2**20:.0f} | {stated / found:.3f} | "
                f"{grown / 2**20:.0f} |",
                flush=True,
            )


def table(arguments) -> None:
    from fetalclip_jax.planning import chips

    print("| global batch | slice | micro-batches | memory, GiB | TFLOP | compute, s |", end="")
    print(" memory, s | links, s | sent, GB | pairs/s at most | MFU at most |\n|" + "---|" * 11)
    for batch in arguments.batch_sizes:
        for kind in KINDS:
            missing = []
            for count in TABLE_CHIPS:
                topology = chips.slice_of(kind, count)
                if topology is None:
                    print(f"| {batch:,} | {kind}, {count} chips | no such slice |" + " |" * 8)
                elif (row := _row(batch, topology, compile_it=arguments.compile)) is None:
                    missing.append(topology.shape)
                else:
                    print(row, flush=True)
            if missing:
                print(f"| {batch:,} | {kind}:{', '.join(missing)} | not compiled |" + " |" * 8)


def _row(batch: int, topology, *, compile_it: bool) -> str | None:
    """A line of the table; None where it has not been compiled and is not to be."""
    from fetalclip_jax import config
    from fetalclip_jax.planning import plan, store

    chip, count = topology.chip.name, topology.devices
    asked = config.parse(f"{CONFIG}:chips={count},chip={chip},batch={batch}")
    if not compile_it and store.find(asked, plan.target_of(topology, count)) is None:
        return None
    found = plan.make(asked, topology)
    parts = found.settings["config.train.micro_batches"]
    memory = f"{found.memory['total'] / 2**30:.1f} of {found.limit / 2**30:.4g}"
    row = f"| {batch:,} | {topology} | {parts} | {memory}"
    if not found.fits:
        return f"{row}: does not fit |" + " |" * 7
    time = found.time
    return (
        f"{row} | {found.device_flops / 1e12:.0f} | {time.compute:.3f} | {time.memory:.3f} | "
        f"{time.links:.3f} | {sum(found.sent.values()) / 1e9:.1f} | {batch / time.bound:,.0f} | "
        f"{found.mfu:.1%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--batch", type=int, default=160)
    parser.add_argument("--remat", nargs="+", default=["none", "full"])
    parser.add_argument("--micro-batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--compile", action="store_true", help="what the table misses")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        found = measured(arguments.batch, arguments.remat[0], arguments.micro_batches[0])
        print(json.dumps(found))
    elif arguments.table:
        table(arguments)
    else:
        memory(arguments)


if __name__ == "__main__":
    main()
