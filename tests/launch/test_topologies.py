import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHOW = f"""
source {ROOT}/launch/options.sh; source {ROOT}/launch/topologies.sh
set_slice "$0"; echo "$chips $hosts $chips_per_host $accelerator_type $gke_accelerator"
"""


# Hosts as in the tables of the documentation of Cloud TPU; the type counts chips, of v5p cores.
@pytest.mark.parametrize(
    ("topology", "expected"),
    [
        ("v5e:1x1", "1 1 1 v5litepod-1 tpu-v5-lite-podslice"),
        ("v5e:2x2", "4 1 4 v5litepod-4 tpu-v5-lite-podslice"),
        ("v5e:2x4", "8 1 8 v5litepod-8 tpu-v5-lite-podslice"),
        ("v5e:4x4", "16 4 4 v5litepod-16 tpu-v5-lite-podslice"),
        ("v5e:16x16", "256 64 4 v5litepod-256 tpu-v5-lite-podslice"),
        ("v6e:2x4", "8 1 8 v6e-8 tpu-v6e-slice"),
        ("v6e:8x16", "128 32 4 v6e-128 tpu-v6e-slice"),
        ("v5p:2x2x1", "4 1 4 v5p-8 tpu-v5p-slice"),
        ("v5p:4x4x4", "64 16 4 v5p-128 tpu-v5p-slice"),
        ("v5p:16x16x16", "4096 1024 4 v5p-8192 tpu-v5p-slice"),
    ],
)
def test_a_topology_says_how_many_hosts_there_are(fakes, topology, expected):
    assert fakes.bash("-c", SHOW, topology).stdout.strip() == expected


@pytest.mark.parametrize(
    "topology", ["v5e:4x5", "v5p:4x4", "v7:2x2", "4x4", "v5e", "v5e:", ".*:4x4", "v5e:4"]
)
def test_one_that_does_not_exist_is_refused_with_those_that_do(fakes, topology):
    done = fakes.bash("-c", SHOW, topology)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: --topology {topology} is not known; there are: v5e: 1x1")
    assert "v5p: 2x2x1" in done.stderr
    assert done.stderr.count("\n") == 1
