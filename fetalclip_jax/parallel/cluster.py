"""How the processes of a job find each other, through `jax.distributed`."""

import contextlib
import importlib.util
import os
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping

import jax

from fetalclip_jax.parallel import leaving

START_TIMEOUT_S = 300.0
# With these, processes are joined where there is no cluster that JAX knows.
_ADDRESS, _COUNT, _ID = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


def initialize(
    coordinator: str | None = None,
    processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout_s: float = START_TIMEOUT_S,
) -> bool:
    """Joins the job that this process is one of, if it is; before JAX computes anything.

    What is not given is taken from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
    JAX_PROCESS_ID, else from what JAX knows of Slurm, Open MPI, Cloud TPU and Kubernetes.

    Args:
      coordinator: "HOST:PORT" of process 0, where it listens and the others find it.
      processes: how many there are.
      process_id: which one this is, from 0.
      timeout_s: how long to wait for the others. The process ends with status 2 where JAX would
        abort it: when it found the coordinator, but not everyone came.

    Returns:
      Whether there are others.

    Raises:
      ValueError: arguments that do not go together; a coordinator that does not answer.
    """
    given = {
        "coordinator": coordinator or os.environ.get(_ADDRESS),
        "processes": _number("processes", processes, _COUNT),
        "process_id": _number("process_id", process_id, _ID),
    }
    missing = [name for name, value in given.items() if value is None]
    if not missing:
        return _join(**given, timeout_s=timeout_s)
    expected = expected_processes(os.environ)
    if expected == 1:
        if len(missing) < len(given):
            raise ValueError(
                f"--{missing[0].replace('_', '-')} is missing: outside of a cluster a job of "
                "several processes needs --coordinator HOST:PORT, --processes N and --process-id I"
            )
        return False
    try:
        with _ended_after(timeout_s, "the coordinator that the cluster names", expected or "all"):
            jax.distributed.initialize(
                given["coordinator"],
                given["processes"],
                given["process_id"],
                local_device_ids=devices_of_a_whole_node(os.environ),
                initialization_timeout=_beyond(timeout_s),
            )
    except (ValueError, RuntimeError) as error:
        if expected is None and "should be defined" in str(error):
            return False  # a machine that could have been one of a pod
        raise ValueError(
            f"the environment speaks of {expected or 'several'} processes, but JAX cannot join "
            f"them ({error}); pass --coordinator HOST:PORT --processes N --process-id I"
        ) from error
    return True


def expected_processes(environment: Mapping[str, str]) -> int | None:
    """How many processes a cluster started, by its environment variables; None: JAX may know."""
    for present, count in (
        # Slurm sets the first one in what `srun` starts, not in the script of a job itself.
        ("SLURM_STEP_NODELIST", "SLURM_NTASKS"),
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ):
        if present in environment:
            return int(environment.get(count, 1))
    if "JOB_COMPLETION_INDEX" in environment and "KUBERNETES_SERVICE_HOST" in environment:
        return None
    # A TPU VM does not say it in its environment; asking where there is no TPU costs nothing.
    return None if importlib.util.find_spec("libtpu") else 1


def devices_of_a_whole_node(environment: Mapping[str, str]) -> list[int] | None:
    """All GPUs of a node where Slurm starts one task on each; there JAX would take the first."""
    per_node = environment.get("SLURM_STEP_TASKS_PER_NODE", "")
    gpus = environment.get("SLURM_GPUS_ON_NODE", "")
    alone = re.fullmatch(r"1(\(x\d+\))?", per_node)
    if alone and gpus.isdigit() and "JAX_LOCAL_DEVICE_IDS" not in environment:
        return list(range(int(gpus)))
    return None


def _join(coordinator: str, processes: int, process_id: int, timeout_s: float) -> bool:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"--coordinator {coordinator} is not HOST:PORT, such as 10.0.0.1:1234")
    if processes < 1 or not 0 <= process_id < processes:
        raise ValueError(
            f"--process-id {process_id} is not one of 0 to {processes - 1}, which "
            f"--processes {processes} allows"
        )
    if processes == 1:
        return False
    address = (host.strip("[]"), int(port))
    if process_id == 0 and _answers(address):
        raise ValueError(
            f"something listens at --coordinator {coordinator} already; choose another port, or "
            "wait until the job that uses it has ended"
        )
    deadline = time.monotonic() + timeout_s
    while process_id and not _answers(address):
        if time.monotonic() > deadline:
            raise ValueError(
                f"the coordinator at {coordinator} did not answer within {timeout_s:g} s: start "
                "process 0 there, with a host and port that all others can reach"
            )
        time.sleep(0.5)
    with _ended_after(timeout_s, coordinator, processes):
        jax.distributed.initialize(
            coordinator,
            processes,
            process_id,
            cluster_detection_method="deactivate",
            initialization_timeout=_beyond(timeout_s),
        )
    return True


def _answers(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, timeout=2):
            return True
    except OSError:
        return False


def _beyond(timeout_s: float) -> int:
    """A time-out for JAX that ours comes before: at its own it aborts the process."""
    return int(timeout_s) + 60


@contextlib.contextmanager
def _ended_after(timeout_s: float, coordinator: str, processes: int | str) -> Iterator[None]:
    """Ends this process with a message unless the block ends in time."""

    def end() -> None:
        leaving.leave(
            f"fetalclip: not all of {processes} processes came to {coordinator} within "
            f"{timeout_s:g} s: start each once, with the same --coordinator and --processes and a "
            "--process-id of its own",
            2,
        )

    timer = threading.Timer(timeout_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _number(name: str, given: int | None, variable: str) -> int | None:
    if given is not None or not os.environ.get(variable):
        return given
    try:
        return int(os.environ[variable])
    except ValueError:
        raise ValueError(
            f"{variable}={os.environ[variable]} is no number; set it, or --"
            f"{name.replace('_', '-')}, to a whole number"
        ) from None
