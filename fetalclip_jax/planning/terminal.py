"""A plan in words."""

from fetalclip_jax.planning.chips import CHIPS, GIB
from fetalclip_jax.planning.plan import Plan

_KINDS = {
    "parameters": "parameters",
    "ema": "averaged parameters",
    "optimiser": "optimiser state",
    "gradients": "gradients",
    "activations": "activations and other temporaries",
    "gathered_features": "gathered features, their gradients",
    "batch": "batch",
    "padding": "padding of what is given",
    "program": "program and metrics",
    "total": "together",
}


def summary(plan: Plan) -> str:
    """All of a plan, in lines."""
    return "\n".join(
        [
            headline(plan),
            *_memory(plan),
            *_work(plan),
            *_time(plan),
            *_arrays(plan),
            *(f"  note: {note}" for note in plan.notes),
        ]
    )


def headline(plan: Plan) -> str:
    """Where, whether it fits, and the bound, in one line."""
    mesh = (
        " x ".join(f"{axis} {size}" for axis, size in plan.mesh.items() if size > 1) or "one device"
    )
    used = f"{plan.memory['total'] / GIB:.2f}"
    if plan.fits is None:
        room = f"{used} GiB on each"
    elif plan.fits:
        room = f"fits, {used} of {plan.limit / GIB:.4g} GiB"
    else:
        room = f"DOES NOT FIT, {used} of {plan.limit / GIB:.4g} GiB"
    bound = f", MFU at most {plan.mfu:.1%}" if plan.mfu is not None else ""
    return f"{plan.target} ({mesh}): {room}{bound}"


def knobs(plan: Plan) -> str:
    """The settings that a plan can change, as arguments of a command line."""
    return " ".join(f"--{name}={value}" for name, value in plan.settings.items())


def advice(plan: Plan) -> list[str]:
    """Which settings make it smaller, the largest part of its memory first."""
    memory, set_to = plan.memory, plan.settings
    state = sum(memory[name] for name in ("parameters", "ema", "optimiser", "gradients"))
    devices = 1
    for size in plan.mesh.values():
        devices *= size
    found = []
    activations = memory["total"] - state
    parts = set_to["config.train.micro_batches"]
    if set_to["config.compute.remat"] == "none":
        found.append((activations, "--config.compute.remat=full: blocks are computed again"))
    found.append((activations * 0.9, f"--config.train.micro_batches={2 * parts}: half at a time"))
    if devices > set_to["config.mesh.fsdp"] * set_to["config.mesh.tensor"]:
        fsdp = devices // set_to["config.mesh.tensor"]
        found.append((state, f"--config.mesh.fsdp={fsdp}: parameters and moments are split"))
    if plan.all_pairs:
        largest = max(buffer.bytes for buffer in plan.all_pairs)
        found.append((largest, "--config.loss.block_size=2048: no matrix of all pairs"))
    elif memory.get("gathered_features", 0) > activations / 4:
        found.append(
            (memory["gathered_features"], "--config.loss.exchange=ring: texts are passed on")
        )
    return [text for _, text in sorted(found, key=lambda item: -item[0])]


def _memory(plan: Plan) -> list[str]:
    lines = ["  memory of each device, GiB"]
    for kind, name in _KINDS.items():
        size = plan.memory.get(kind)
        if size is not None and (size or kind == "total"):
            lines.append(f"    {name:<36}{_short(size / GIB)}")
    return lines


def _work(plan: Plan) -> list[str]:
    if not plan.device_flops:
        return []
    devices = 1
    for size in plan.mesh.values():
        devices *= size
    again = plan.device_flops * devices / plan.model_flops
    lines = [
        "  work of a step on each device",
        f"    {'products of matrices, TFLOP':<36}{_short(plan.device_flops / 1e12)}"
        f"   ({again:.2f} x what the model stands for)",
        f"    {'memory traffic, GB':<36}{_short(plan.traffic / 1e9)}",
    ]
    for name, size in plan.sent.items():
        lines.append(f"    {f'sent, {name}, GB':<36}{_short(size / 1e9)}")
    return lines


def _time(plan: Plan) -> list[str]:
    if plan.time is None:
        return []
    chip, parts = CHIPS[plan.chip], plan.time
    lines = [
        f"  least time of a step by the {chip.name}'s published peaks ({chip.source}), seconds",
        f"    {f'compute, {chip.tflops:g} TFLOP/s':<36}{_short(parts.compute)}",
        f"    {f'memory, {chip.memory_gbs:g} GB/s':<36}{_short(parts.memory)}",
    ]
    if chip.link_gbs:
        lines.append(f"    {f'links, {chip.link_gbs:g} GB/s':<36}{_short(parts.links)}")
    return [
        *lines,
        f"    {'all at once (the bound)':<36}{_short(parts.bound)}",
        f"    {'one after the other':<36}{_short(parts.sum)}",
        f"    {'MFU, at most':<36}{plan.mfu:>9.1%}",
    ]


def _arrays(plan: Plan) -> list[str]:
    lines = ["  largest arrays of a device, GiB"] if plan.largest else []
    for one in plan.largest:
        lines.append(f"    {one.shape:<36}{_short(one.bytes / GIB)}   {one.where}".rstrip())
    if plan.largest and not plan.all_pairs:
        lines.append("  no matrix of all pairs of the global batch")
    for one in plan.all_pairs:
        lines.append(f"  MATRIX OF ALL PAIRS {one.shape}, {one.bytes / GIB:.3f} GiB: {one.where}")
    for one in plan.whole_batch[:3]:
        lines.append(f"  NOT SPLIT BY EXAMPLE {one.shape}, {one.bytes / GIB:.3f} GiB: {one.where}")
    return lines


def _short(number: float) -> str:
    """Three decimals, or two digits of what has none there, at the right of a column."""
    return f"{number:>9.3f}" if number >= 0.1 or not number else f"{number:>9.2g}"
