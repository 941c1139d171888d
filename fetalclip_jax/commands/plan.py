"""`fetalclip plan`."""

import argparse
import os
import pathlib

from fetalclip_jax.commands import arguments

SUMMARY = "What a training step needs on devices that need not be there: memory, time, traffic."
EXAMPLE = """\
fetalclip plan --config configs/fetalclip_vitl14.py:chips=16 --topology v5e:4x4
  fetalclip plan --config configs/fetalclip_vitl14.py:chips=16 --topology v5e:4x4 --search
  fetalclip plan --config configs/hc18.py --devices 8"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_config(parser, required=True)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--topology",
        help="TPUs such as v5e:4x4, whose own compiler is asked (extra `plan`); or a card, H100",
    )
    where.add_argument("--devices", type=int, metavar="N", help="simulated CPU devices instead")
    parser.add_argument(
        "--search",
        action="store_true",
        help="look for the mesh, rematerialisation and micro-batches that fit with the best bound",
    )
    parser.add_argument(
        "--compiles",
        type=int,
        default=6,
        metavar="N",
        help="programs to compile for --search, at most (default: 6)",
    )
    parser.add_argument("--output", type=pathlib.Path, help="JSON file of the plan")


def run(given: argparse.Namespace, overrides: list[str]) -> None:
    from fetalclip_jax.planning import chips

    # Before anything that takes time.
    topology = chips.topology(given.topology) if given.topology else None
    for name in ("devices", "compiles"):
        if getattr(given, name) is not None and getattr(given, name) < 1:
            raise ValueError(f"--{name} {getattr(given, name)} is not 1 or more")
    if given.search and topology is None:
        raise ValueError("--search compares with a chip's peaks: give --topology, not --devices")
    # Nothing runs here: a TPU or a GPU of this machine is left to others.
    os.environ["JAX_PLATFORMS"] = "cpu"
    from fetalclip_jax import config
    from fetalclip_jax.planning import plan, search, terminal
    from fetalclip_jax.run import write_json
    from fetalclip_jax.training import origin

    asked = origin.with_described_model(config.parse(given.config, overrides))
    if given.search:
        found = search.best(asked, topology, compiles=given.compiles)
    else:
        found = plan.make(asked, topology, given.devices or 1)
    print(terminal.summary(found))
    if found.fits is False:
        print("  to make it fit, the largest part first:")
        print("\n".join(f"    {line}" for line in terminal.advice(found)))
    elif given.search:
        print(f"  settings: {terminal.knobs(found)}")
    if given.output:
        write_json(given.output, found.to_dict())
