"""What do the losses cost with all logits in memory, and tile by tile?

    python benchmarks/contrastive_loss.py                # dense against tiles: B = 8,192, D = 512
    python benchmarks/contrastive_loss.py --large        # tiles alone at B = 65,536: minutes
    python benchmarks/contrastive_loss.py --world 8      # gathered and in a ring, simulated devices

Value and all gradients, float32. Seconds are medians of rounds that take turns; beside them stand
those of processor time, which other programs on the machine change less. "temporaries" are those
of XLA's plan of the program; "resident" is how far the peak of a process of its own grew by the
call, inputs and program being there already.
"""

import argparse
import functools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

LOSSES = ("softmax", "sigmoid")


def program(name: str, batch: int, dim: int, **options):
    """The compiled loss with gradients, and its inputs."""
    import jax  # after the number of simulated devices is set
    import jax.numpy as jnp

    from fetalclip_jax import losses
    from fetalclip_jax.models.clip import unit_length
    from fetalclip_jax.parallel import sharding
    from fetalclip_jax.parallel.mesh import make_mesh

    features = jax.random.normal(jax.random.key(0), (2, batch, dim))
    takes = [unit_length(one) for one in features] + [jnp.float32(14.0), jnp.float32(-10.0)]
    takes = takes[: 3 + (name == "sigmoid")]
    if jax.device_count() > 1:
        mesh = options["mesh"] = make_mesh()
        split, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)
        takes = [jax.device_put(one, split if one.ndim else whole) for one in takes]
    loss = functools.partial(getattr(losses, f"{name}_contrastive"), **options)
    gradients = jax.value_and_grad(loss, argnums=tuple(range(len(takes))), has_aux=True)
    return jax.jit(gradients).lower(*takes).compile(), takes


def temporaries_mib(compiled) -> float:
    return compiled.memory_analysis().temp_size_in_bytes / 2**20


def peak_mib(forget: bool = False) -> float:
    """The most memory this process had resident, since the last call that forgot it (Linux)."""
    if forget:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**10


def one_call(settings: dict) -> dict:
    """Memory and seconds of a single call in this process."""
    import jax

    compiled, takes = program(**settings)
    jax.block_until_ready(takes)
    before, start = peak_mib(forget=True), time.perf_counter()
    jax.block_until_ready(compiled(*takes))
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "resident": peak_mib() - before,
        "peak": peak_mib(),
        "temporaries": temporaries_mib(compiled),
    }


def in_a_process(world: int = 1, **settings) -> dict:
    """`one_call` in a process of its own, of so many simulated devices."""
    flags = os.environ.get("XLA_FLAGS", "")
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={world}",
    }
    command = [sys.executable, __file__, "--one", json.dumps(settings)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def take_turns(programs: dict, rounds: int) -> dict[str, tuple[float, float]]:
    """Median seconds, and seconds of processor time, of each program."""
    import jax

    found = {name: [] for name in programs}
    for turn in range(rounds + 1):
        for name, (compiled, takes) in programs.items():
            start, used = time.perf_counter(), time.process_time()
            jax.block_until_ready(compiled(*takes))
            if turn:  # the first warms up
                found[name].append((time.perf_counter() - start, time.process_time() - used))
    return {
        name: tuple(statistics.median(column) for column in zip(*rows, strict=True))
        for name, rows in found.items()
    }


def compare(batch: int, dim: int, block: int, rounds: int) -> None:
    print("| loss | logits | seconds | processor time | temporaries, MiB | resident, MiB |")
    print("|---|---|---|---|---|---|")
    for name in LOSSES:
        ways = {"all": None, f"tiles of {block}": block}
        made = {
            way: {"name": name, "batch": batch, "dim": dim, "block_size": size}
            for way, size in ways.items()
        }
        programs = {way: program(**settings) for way, settings in made.items()}
        times = take_turns(programs, rounds)
        seconds, used = times["all"]
        for way, settings in made.items():
            resident = in_a_process(**settings)["resident"]
            print(
                f"| {name} | {way} | {times[way][0]:.2f} ({times[way][0] / seconds:.2f}) | "
                f"{times[way][1]:.2f} ({times[way][1] / used:.2f}) | "
                f"{temporaries_mib(programs[way][0]):,.0f} | {resident:,.0f} |",
                flush=True,
            )


def large(batch: int, dim: int, block: int) -> None:
    print("| loss | B | seconds | temporaries, MiB | resident, MiB | peak of the process, MiB |")
    print("|---|---|---|---|---|---|")
    for name in LOSSES:
        found = in_a_process(name=name, batch=batch, dim=dim, block_size=block)
        print(
            f"| {name} | {batch:,} | {found['seconds']:.0f} | {found['temporaries']:,.0f} | "
            f"{found['resident']:,.0f} | {found['peak']:,.0f} |",
            flush=True,
        )


def many(world: int, batch: int, dim: int, block: int) -> None:
    print("| loss | devices | texts | seconds | temporaries of a device, MiB |")
    print("|---|---|---|---|---|")
    for name in LOSSES:
        for exchange in ("gather", "ring"):
            settings = {"name": name, "batch": batch, "dim": dim, "block_size": block}
            found = in_a_process(world, exchange=exchange, **settings)
            print(
                f"| {name} | {world} | {exchange} | {found['seconds']:.2f} | "
                f"{found['temporaries']:,.1f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="B = 65,536, tile by tile")
    parser.add_argument("--world", type=int, help="simulated devices to gather or ring on")
    parser.add_argument("--batch", type=int, default=8192)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--block-size", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one_call(json.loads(arguments.one))))
    elif arguments.large:
        large(65536, arguments.dim, arguments.block_size)
    elif arguments.world:
        many(arguments.world, arguments.batch, arguments.dim, arguments.block_size)
    else:
        compare(arguments.batch, arguments.dim, arguments.block_size, arguments.rounds)


if __name__ == "__main__":
    main()
