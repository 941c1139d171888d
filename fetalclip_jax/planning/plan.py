"""What a step costs: memory by kind, arithmetic, communication, and the least time it can take."""

import dataclasses
import math
import pathlib
from typing import Any

from ml_collections import ConfigDict

from fetalclip_jax.config import images_per_example
from fetalclip_jax.models import flops
from fetalclip_jax.models.presets import CLIPConfig
from fetalclip_jax.parallel.sharding import BATCH
from fetalclip_jax.planning import arithmetic, buffers, chips, collectives, hlo, store
from fetalclip_jax.planning.compiled import Compiled


@dataclasses.dataclass(frozen=True)
class Time:
    """Seconds of a step that each part of a chip cannot do with less of.

    Attributes:
      compute: products of matrices at the published peak, full float32 as six of bfloat16.
      memory: what kernels read and write, at the published bandwidth.
      links: what each device sends, over all of its links at once.
    """

    compute: float
    memory: float
    links: float

    @property
    def bound(self) -> float:
        """If all three go on at the same time, perfectly."""
        return max(self.compute, self.memory, self.links)

    @property
    def sum(self) -> float:
        """If none does."""
        return self.compute + self.memory + self.links


@dataclasses.dataclass(frozen=True)
class Plan:
    """A step of a configuration on a number of devices.

    Attributes:
      target: what it was compiled for, such as "v5e:4x4" or "8 simulated devices".
      chip: whose peaks count; None for simulated devices of no kind.
      mesh: axis -> size.
      settings: the fields of the configuration that a plan can change.
      fits: whether it does; None where there is no limit to compare with.
      limit: bytes of memory of a device.
      memory: bytes on each device by kind, `total` among them.
      model_flops: operations that the model stands for, of all devices, see `models.flops`.
      device_flops: products that each device does, what is computed again included.
      traffic: bytes each device reads and writes in its memory.
      sent: bytes each device sends in a step, by axes and kind.
      time: least seconds of a step; None without a chip or if it does not fit.
      mfu: share of the peak that the model's operations reach in `time.bound`.
      largest: arrays of one device.
      all_pairs: arrays of similarities of the global batch, of which there should be none.
      whole_batch: activations that are not split over the devices, as they should be.
      notes: what is to be known of these figures.
    """

    target: str
    chip: str | None
    mesh: dict[str, int]
    settings: dict[str, Any]
    fits: bool | None
    limit: int | None
    memory: dict[str, int]
    model_flops: int
    device_flops: int
    traffic: int
    sent: dict[str, int]
    time: Time | None
    mfu: float | None
    largest: list[buffers.Buffer]
    all_pairs: list[buffers.Buffer]
    whole_batch: list[buffers.Buffer]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """What is written as JSON."""
        content = dataclasses.asdict(self)
        if self.time is not None:
            content["time"] |= {"bound": self.time.bound, "sum": self.time.sum}
        return content


def make(
    config: ConfigDict,
    topology: chips.Topology | None = None,
    devices: int = 1,
    *,
    folder: pathlib.Path | None = None,
) -> Plan:
    """The plan of one step; compiled in a process of its own, unless it was before.

    Args:
      topology: TPUs, or a card, which is planned with a simulated CPU device of its memory.
      devices: simulated ones, without a topology.
      folder: see `store.get`.

    Raises:
      ValueError: as `store.get`.
    """
    target = target_of(topology, devices)
    return read(config, store.get(config, target, folder), target, topology)


def target_of(topology: chips.Topology | None, devices: int) -> store.Target:
    """What the compiler is asked for: a card's own is not there without the card."""
    if topology is not None and topology.chip.is_tpu:
        return store.Target(topology, topology.devices)
    return store.Target(None, devices if topology is None else topology.devices)


def read(
    config: ConfigDict, step: Compiled, target: store.Target, topology: chips.Topology | None
) -> Plan:
    """What a compiled step says."""
    chip = topology.chip if topology else None
    module = hlo.parse(step.text) if step.text else None
    batch = config.train.global_batch_size
    shards = math.prod(step.mesh[axis] for axis in BATCH[0])
    count = math.prod(step.mesh.values())
    length = config.model.text_cfg.context_length
    model = batch * flops.of_training_pair(
        CLIPConfig.from_dict(config.model.to_dict()), length, images_per_example(config)
    )
    found = collectives.find(module, step.mesh) if module else []
    device_flops, passes = arithmetic.operations(module) if module else (0, 0)
    traffic = arithmetic.traffic(module) if module else 0
    sent = collectives.bytes_by_axes(found)
    memory = _memory(step, found)
    limit = step.needed[1] if step.needed else chip.usable_bytes if chip else None
    fits = None if limit is None else step.needed is None and memory["total"] <= limit
    all_pairs = buffers.of_all_pairs(module, batch, shards) if module else []
    notes = _notes(module, target, topology)
    if all_pairs and config.model.embed_dim in (batch, batch // shards):
        notes.append(
            f"features are {config.model.embed_dim} wide, as a side of a matrix of all pairs is "
            "long: what is named as one may be features"
        )
    time = mfu = None
    if chip is not None and module is not None:
        links = sum(sent.values()) / (chip.link_gbs * 1e9) if chip.link_gbs else 0.0
        time = Time(passes / (chip.tflops * 1e12), traffic / (chip.memory_gbs * 1e9), links)
        mfu = model / count / (chip.tflops * 1e12) / time.bound
    return Plan(
        target=str(topology or target),
        chip=chip.name if chip else None,
        mesh=step.mesh,
        settings=settings(config),
        fits=fits,
        limit=limit,
        memory=memory,
        model_flops=model,
        device_flops=device_flops,
        traffic=traffic,
        sent=sent,
        time=time,
        mfu=mfu,
        largest=buffers.largest(module) if module else [],
        all_pairs=all_pairs,
        whole_batch=(
            buffers.of_whole_batch(module, batch // config.train.micro_batches, shards)
            if module
            else []
        ),
        notes=notes,
    )


def settings(config: ConfigDict) -> dict[str, Any]:
    """What a plan may change of a configuration without changing what is learned."""
    return {
        "config.train.global_batch_size": config.train.global_batch_size,
        "config.train.micro_batches": config.train.micro_batches,
        "config.compute.remat": config.compute.remat,
        "config.compute.dtype": config.compute.dtype,
        "config.loss.block_size": config.loss.block_size,
        "config.loss.exchange": config.loss.exchange,
        "config.mesh.fsdp": config.mesh.fsdp,
        "config.mesh.tensor": config.mesh.tensor,
    }


def _memory(step: Compiled, found: list[collectives.Collective]) -> dict[str, int]:
    """Bytes on each device by kind.

    Parameters, averages, optimiser state, batch and gradients are exact; the compiler says what
    all temporaries are together; gathered features are what the loss's collectives give; the rest
    of the temporaries are activations.
    """
    kinds = dict(step.kinds)
    if step.needed is not None:
        given = sum(kinds[name] for name in ("parameters", "ema", "optimiser", "batch"))
        # XLA counts the temporaries alone, or all there is: the larger is meant.
        return kinds | {"total": max(step.needed[0], given)}
    given = sum(kinds[name] for name in ("parameters", "ema", "optimiser", "batch"))
    temporaries = step.memory["temporaries"]
    gathered = sum(one.result for one in found if buffers.LOSS_ON_DEVICES in one.op_name)
    kinds["gathered_features"] = min(gathered, max(0, temporaries - kinds["gradients"]))
    kinds["activations"] = max(0, temporaries - kinds["gradients"] - kinds["gathered_features"])
    kinds["padding"] = step.memory["arguments"] - given  # below 0: what no instruction reads
    kinds["program"] = step.memory["program"] + step.memory["results"]
    kinds["total"] = sum(step.memory.values())
    return kinds


def _notes(module, target: store.Target, topology: chips.Topology | None) -> list[str]:
    notes = []
    if module is None:
        notes.append("the compiler refused it for want of memory: there is no program to count in")
    elif module.unknown_loops:
        loops = len(module.unknown_loops)
        notes.append(f"{loops} loops do not say how often they turn, and count once")
    if topology is not None and not topology.chip.is_tpu:
        notes.append(
            f"compiled for a CPU in the place of the {topology.chip.name}: a GPU's compiler keeps "
            "other buffers, and its fused attention fewer"
        )
    elif topology is None:
        notes.append(f"for {target}: CPUs, of which there is no published peak")
    return notes
