import socket

import pytest

from fetalclip_jax.parallel import cluster, distributed
from fetalclip_jax.parallel.job import job

TWO = {"coordinator": "127.0.0.1:9", "processes": 2, "process_id": 1}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No cluster, and never a connection: these tests are one process."""
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
        monkeypatch.delenv(name, raising=False)

    def refuse(*_, **__):
        raise AssertionError("JAX was asked to connect")

    monkeypatch.setattr("jax.distributed.initialize", refuse)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"processes": 2}, "--coordinator is missing"),
        ({"coordinator": "host:1", "processes": 2}, "--process-id is missing"),
        (TWO | {"coordinator": "127.0.0.1"}, r"--coordinator 127\.0\.0\.1 is not HOST:PORT"),
        (TWO | {"process_id": 2}, "--process-id 2 is not one of 0 to 1"),
        (TWO | {"process_id": -1}, "--process-id -1 is not one of 0 to 1"),
        (TWO, "the coordinator at 127.0.0.1:9 did not answer within 0 s"),
    ],
)
def test_arguments_that_cannot_join_a_job_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        cluster.initialize(**given, timeout_s=0.0)


def test_a_port_in_use_is_told_before_two_jobs_mix():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ValueError, match=f"listens at --coordinator {address} already"):
            cluster.initialize(address, 2, 0)


def test_the_environment_gives_what_arguments_do_not(monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:9")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    monkeypatch.setenv("JAX_PROCESS_ID", "one")
    with pytest.raises(ValueError, match="JAX_PROCESS_ID=one is no number"):
        cluster.initialize()
    monkeypatch.setenv("JAX_PROCESS_ID", "5")
    with pytest.raises(ValueError, match="--process-id 5 is not one of 0 to 1"):
        cluster.initialize()


def test_a_process_by_itself_joins_nothing_and_asks_nobody(tmp_path):
    assert not cluster.initialize()
    assert not cluster.initialize("127.0.0.1:9", 1, 0)
    with job("test"):
        assert not distributed.several()
        assert distributed.on_lead(lambda: 3) == 3
        distributed.agree({"seed": 1}, "nothing to do")
        distributed.check_shared(tmp_path / "absent")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 1),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, 1),  # the script of a job, no task of a step
        ({"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_NTASKS": "2"}, 2),
        ({"SLURM_STEP_NODELIST": "n1", "SLURM_NTASKS": "1"}, 1),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "3"}, 3),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, 1),  # a notebook in a pod
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, None),
    ],
)
def test_clusters_are_known_by_their_environment(environment, expected):
    assert cluster.expected_processes(environment) == expected


@pytest.mark.parametrize(
    ("per_node", "gpus", "devices"),
    [
        ("1(x2)", "4", [0, 1, 2, 3]),  # one task on each node takes all its GPUs
        ("1", "2", [0, 1]),
        ("4(x2)", "4", None),  # JAX gives each task one
        ("1(x2)", "", None),
    ],
)
def test_one_task_on_a_node_of_slurm_takes_all_its_gpus(per_node, gpus, devices):
    environment = {"SLURM_STEP_TASKS_PER_NODE": per_node, "SLURM_GPUS_ON_NODE": gpus}
    assert cluster.devices_of_a_whole_node(environment) == devices


def test_a_cluster_that_jax_cannot_join_is_no_single_process(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "3")

    def find_nothing(*_, **__):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr("jax.distributed.initialize", find_nothing)
    with pytest.raises(ValueError, match=r"speaks of 3 processes, but JAX cannot join them"):
        cluster.initialize()
