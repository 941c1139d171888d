"""Looks for the mesh, rematerialisation and micro-batches that fit with the best bound."""

import copy
import dataclasses
from collections.abc import Callable, Iterator

from ml_collections import ConfigDict

from fetalclip_jax.models.transformer import REMAT_POLICIES
from fetalclip_jax.planning import estimate, plan
from fetalclip_jax.planning.chips import Topology


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Settings, and the least time a step can take with them."""

    fsdp: int
    remat: str
    micro_batches: int
    seconds: float

    def of(self, config: ConfigDict) -> ConfigDict:
        """`config` with these settings."""
        changed = copy.deepcopy(config).unlock()
        changed.mesh.data, changed.mesh.fsdp = -1, self.fsdp
        changed.compute.remat = self.remat
        changed.train.micro_batches = self.micro_batches
        return changed.lock()

    def __str__(self) -> str:
        return f"fsdp {self.fsdp}, remat {self.remat}, micro-batches {self.micro_batches}"


def best(
    config: ConfigDict,
    topology: Topology,
    *,
    compiles: int = 6,
    make: Callable[..., plan.Plan] = plan.make,
    say: Callable[[str], None] = print,
) -> plan.Plan:
    """The plan with the highest MFU bound that fits, by compiling the most promising ones.

    Of each mesh and policy the largest micro-batch comes first that may fit; what the compiler
    refuses is halved. It ends when nothing left could be better, or after `compiles`.

    Args:
      make: compiles a configuration for a topology.
      say: is told of each plan.

    Returns:
      The best plan, or where none fits the smallest.

    Raises:
      ValueError: no settings divide the global batch; as `plan.make`.
    """
    sizes = estimate.sizes(config)
    waiting, made = list(_candidates(config, topology, sizes)), []
    if not waiting:
        raise ValueError(
            f"config.train.global_batch_size={config.train.global_batch_size} on {topology}: no "
            "mesh and micro-batches that divide it are small enough; take more chips"
        )
    for number in range(1, compiles + 1):
        fitting = [one for one in made if one.fits]
        found = max(fitting, key=lambda one: one.mfu, default=None)
        waiting = [one for one in waiting if found is None or one.seconds < found.time.bound]
        if not waiting:
            break
        # Of equal bounds fewer parts: larger products, and gradients that are summed less often.
        waiting.sort(key=lambda one: (float(f"{one.seconds:.1e}"), one.micro_batches, one.fsdp))
        candidate = waiting.pop(0)
        made.append(make(candidate.of(config), topology))
        say(f"{number}/{compiles} {candidate}: {_outcome(made[-1])}")
        if not made[-1].fits:
            waiting.extend(_halved(candidate, config, topology, sizes))
    fitting = [one for one in made if one.fits]
    if fitting:
        return max(fitting, key=lambda one: one.mfu)
    return min(made, key=lambda one: one.memory["total"])


def _candidates(config, topology: Topology, sizes: estimate.Sizes) -> Iterator[Candidate]:
    """For each mesh and policy the fewest micro-batches that may fit."""
    for fsdp in _divisors(topology.devices // config.mesh.tensor):
        for remat in REMAT_POLICIES:
            for parts in _parts(config, topology):
                one = _candidate(config, topology, sizes, fsdp, remat, parts)
                needed = estimate.memory(one.of(config), sizes, topology.devices)
                if needed <= topology.chip.usable_bytes:
                    yield one
                    break


def _candidate(config, topology, sizes, fsdp, remat, parts) -> Candidate:
    one = Candidate(fsdp, remat, parts, 0.0)
    seconds = estimate.seconds(one.of(config), topology.chip, sizes, topology.devices)
    return dataclasses.replace(one, seconds=seconds)


def _halved(refused: Candidate, config, topology, sizes) -> list[Candidate]:
    """The same with micro-batches of half the size, if there are."""
    parts = 2 * refused.micro_batches
    if parts not in _parts(config, topology):
        return []
    return [_candidate(config, topology, sizes, refused.fsdp, refused.remat, parts)]


def _divisors(devices: int) -> list[int]:
    """Shards of the parameters to try: none, fours, and all devices."""
    fours = (4**power for power in range(6))
    return sorted({n for n in (*fours, devices) if n <= devices and devices % n == 0})


def _parts(config: ConfigDict, topology: Topology) -> list[int]:
    """Numbers of micro-batches that leave each device at least one example of each."""
    local = config.train.global_batch_size * config.mesh.tensor / topology.devices
    powers = (2**power for power in range(20))
    return [n for n in powers if n <= local and local % n == 0]


def _outcome(made: plan.Plan) -> str:
    room = f"{made.memory['total'] / 2**30:.1f} of {made.limit / 2**30:.4g} GiB"
    return f"fits, {room}, MFU at most {made.mfu:.1%}" if made.fits else f"does not fit, {room}"
