"""A process of its own that compiles one step, so that JAX can be set up for its devices.

    python -m fetalclip_jax.planning.worker FOLDER [TOPOLOGY]

It is started by `store`: FOLDER holds `config.json`, and gets `result.json` with what
`compiled.Compiled` has, or an `error`. Without a topology the step is for the devices JAX has.
"""

import dataclasses
import json
import pathlib
import sys

import jax

from fetalclip_jax.config import load_config
from fetalclip_jax.planning import compiled


def main(folder: str, topology: str = "") -> None:
    try:
        config = load_config(pathlib.Path(folder, "config.json"))
        said = dataclasses.asdict(compiled.compile_step(config, _devices(topology)))
    except ValueError as error:
        said = {"error": str(error)}
    pathlib.Path(folder, "result.json").write_text(json.dumps(said))


def _devices(topology: str) -> list[jax.Device]:
    if not topology:
        return jax.devices()
    from jax.experimental import topologies

    return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices


if __name__ == "__main__":
    main(*sys.argv[1:])
