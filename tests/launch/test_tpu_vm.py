"""tpu_vm.sh with a cloud that is played, and what it runs on a host."""

import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import tarfile
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
OPTIONS = ["--name=mine", "--zone=us-west4-a", "--topology=v5e:4x4"]
COMMAND = ["--", "fetalclip", "train", "--config", "c.py", "--workdir", "gs://bucket/run"]

# The states a request goes through are lines of $FAKES/states, of which the last one stays; each
# line of $FAKES/runs is with what status the command's connection ends, and what happens then.
GCLOUD = """
first() { head -n 1 "$1"; [ "$(wc -l <"$1")" -lt 2 ] || sed -i 1d "$1"; }
states() { printf '%s\\n' "$@" >"$FAKES/states"; }
case "$*" in
  *"queued-resources describe"*)
    state="$(first "$FAKES/states")"
    case "$state" in
      ABSENT)
        echo "ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: Resource 'mine'" \
          "was not found" >&2
        exit 1
        ;;
      DENIED)
        echo "ERROR: (gcloud.compute.tpus.queued-resources.describe) PERMISSION_DENIED: no" >&2
        exit 1
        ;;
    esac
    echo "$state"
    ;;
  *"queued-resources create"*)
    [ ! -e "$FAKES/refuses" ] || { echo "ERROR: quota" >&2; exit 1; }
    states CREATING WAITING_FOR_RESOURCES PROVISIONING ACTIVE
    ;;
  *"queued-resources delete"*) states ABSENT; echo READY >"$FAKES/node" ;;
  *"tpu-vm describe"*) printf '%s\\tv5litepod-16\\n' "$(cat "$FAKES/node")" ;;
  *"tpu-vm scp"*) for file in "$@"; do [ ! -f "$file" ] || cp "$file" "$FAKES"; done ;;
  *tpu_vm_job.sh*)
    read -r status what <"$FAKES/runs"
    sed -i 1d "$FAKES/runs"
    case "$what" in
      preempted) states SUSPENDING SUSPENDED ;;
      node) echo PREEMPTED >"$FAKES/node" ;;
    esac
    exit "$status"
    ;;
esac
"""


@pytest.fixture
def cloud(fakes):
    fakes.program("gcloud", GCLOUD)
    fakes.write("states", "ABSENT")
    fakes.write("node", "READY")
    return fakes


def verbs(cloud):
    """Of all calls, those that change something."""
    return [verb for call in cloud.calls("gcloud") if (verb := name(call))]


def attempts(cloud):
    return [call.split()[-1] for call in cloud.calls("gcloud") if name(call) == "run"]


def name(call):
    if "--command=bash fetalclip/tpu_vm_job.sh" in call:
        return "run"
    verb = call.split()[4]
    return verb if verb in ("create", "delete", "scp") else None


def test_a_slice_is_asked_for_and_the_command_run_on_all_its_hosts(cloud):
    cloud.write("runs", 0)
    done = cloud.launch("tpu_vm.sh", *OPTIONS, "--spot", "--project=p", *COMMAND)
    assert done.returncode == 0
    assert verbs(cloud) == ["create", "scp", "run"]
    (create,) = [call for call in cloud.calls() if " create " in call]
    assert create == (
        "gcloud compute tpus queued-resources create mine --node-id=mine --zone=us-west4-a "
        "--project=p --accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite --spot"
    )
    for call in cloud.calls("gcloud compute tpus tpu-vm s"):
        assert "--worker=all" in call
        assert "--zone=us-west4-a --project=p" in call
    assert "the slice is there, and costs, until: gcloud compute tpus queued" in done.stderr
    # What was sent: the command, and a checkout that can be installed.
    assert shlex.split((cloud.folder / "command.sh").read_text()) == COMMAND[1:]
    with tarfile.open(cloud.folder / "sent.tar.gz") as sent:
        names = sent.getnames()
    assert {"setup.py", "fetalclip_jax/cli.py", "configs/phantom_quickstart.py"} <= {*names}


@pytest.mark.parametrize("sign", ["preempted", "node"])
def test_a_preempted_slice_is_asked_for_again_and_the_command_goes_on(cloud, sign):
    cloud.write("runs", f"255 {sign}", "75 preempted", "0")
    done = cloud.launch("tpu_vm.sh", *OPTIONS, "--restarts=0", "--delete", *COMMAND)
    assert done.returncode == 0, done.stderr
    once = ["create", "scp", "run", "delete"]
    assert verbs(cloud) == once * 3
    assert len({*attempts(cloud)}) == 3
    assert done.stderr.count("tpu_vm.sh: preempted; asking for another one") == 2
    assert "told to end; it saved, and goes on" in done.stderr


def test_a_lost_connection_does_not_start_the_command_again(cloud):
    cloud.write("runs", 255, 1, 0)
    done = cloud.launch("tpu_vm.sh", *OPTIONS, "--restarts=0", *COMMAND)
    assert done.returncode == 0
    assert verbs(cloud) == ["create", *["scp", "run"] * 3]
    assert len({*attempts(cloud)}) == 1


def test_a_slice_that_is_there_is_used(cloud):
    cloud.write("states", "ACTIVE")
    cloud.write("runs", 0)
    assert cloud.launch("tpu_vm.sh", *OPTIONS, *COMMAND).returncode == 0
    assert verbs(cloud) == ["scp", "run"]


def test_one_of_another_size_is_not(cloud):
    cloud.write("states", "ACTIVE")
    options = ["--name=mine", "--zone=us-west4-a", "--topology=v5e:8x8"]
    done = cloud.launch("tpu_vm.sh", *options, "--delete", *COMMAND)
    assert (done.returncode, verbs(cloud)) == (1, [])
    assert "mine is a slice of v5litepod-16, and v5e:8x8 is v5litepod-64; choose" in done.stderr


@pytest.mark.parametrize(
    ("runs", "status", "message", "times"),
    [
        ([70, 70, 70], 1, "it failed 3 times", 3),
        ([64], 2, "not started again: status 2 says", 1),
        ([65], 1, "the installation failed", 1),
    ],
)
def test_what_fails_for_good_ends_it_and_is_deleted_on_request(cloud, runs, status, message, times):
    cloud.write("runs", *runs)
    done = cloud.launch("tpu_vm.sh", *OPTIONS, "--restarts=2", "--delete", *COMMAND)
    assert done.returncode == status
    assert f"tpu_vm.sh: {message}" in done.stderr
    assert verbs(cloud) == ["create", *["scp", "run"] * times, "delete"]


def test_a_command_that_may_go_on_is_never_deleted(cloud):
    cloud.write("states", "ACTIVE")
    cloud.write("runs", *[255] * 10)
    done = cloud.launch("tpu_vm.sh", *OPTIONS, "--delete", *COMMAND)
    assert done.returncode == 1
    assert "no connection to the slice, ten times in a row" in done.stderr
    cloud.write("runs", 66)
    done = cloud.launch("tpu_vm.sh", *OPTIONS, "--delete", *COMMAND)
    assert "another command runs there; wait for it, or choose another --name" in done.stderr
    assert "delete" not in verbs(cloud)


def test_what_the_cloud_refuses_is_said_at_once(cloud):
    cloud.write("states", "DENIED")
    done = cloud.launch("tpu_vm.sh", *OPTIONS, *COMMAND)
    assert done.returncode == 2
    assert "PERMISSION_DENIED" in done.stderr
    assert len(cloud.calls("gcloud")) == 1
    cloud.write("states", "ABSENT")
    cloud.write("refuses")
    done = cloud.launch("tpu_vm.sh", *OPTIONS, *COMMAND)
    assert (done.returncode, verbs(cloud)) == (1, ["create"])
    assert "the slice was refused" in done.stderr
    cloud.write("states", "FAILED")
    done = cloud.launch("tpu_vm.sh", *OPTIONS, *COMMAND)
    assert done.returncode == 1
    assert (
        "why: gcloud compute tpus queued-resources describe mine --zone=us-west4-a;" in done.stderr
    )


def test_a_dry_run_prints_what_would_be_run_and_runs_nothing(cloud):
    options = [*OPTIONS, "--delete", "--create=--network=lab"]
    shown = cloud.launch("tpu_vm.sh", *options, "--dry-run", *COMMAND)
    assert (shown.returncode, cloud.calls()) == (0, [])
    assert "# v5e:4x4: 16 chips on 4 host(s)" in shown.stdout
    cloud.write("runs", 0)
    assert cloud.launch("tpu_vm.sh", *options, *COMMAND).returncode == 0
    said = [" ".join(shlex.split(line)) for line in shown.stdout.splitlines()]
    (number,) = attempts(cloud)
    for call in cloud.calls("gcloud"):
        call = re.sub(r"\S*/tmp\.\w+/", "/tmp/fetalclip-sent/", call.replace(number, "1"))
        assert call in said or "tpu-vm describe" in call


# --- On a host ---


@pytest.fixture
def host(fakes):
    """A host with what was sent to it, and programs that install nothing."""
    folder = fakes.folder / "fetalclip"
    folder.mkdir()
    shutil.copy(ROOT / "launch" / "tpu_vm_job.sh", folder)
    fakes.program("python3")
    fakes.program("uv", 'case "$1" in venv) mkdir -p venv/bin; touch venv/bin/python;; esac')
    (fakes.folder / ".local" / "bin").mkdir(parents=True)
    (fakes.programs / "uv").rename(fakes.folder / ".local" / "bin" / "uv")
    (folder / "setup.sh").write_text('echo mounted >>"$FAKES/setup"\n')
    with tarfile.open(folder / "sent.tar.gz", "w:gz"):
        pass
    return fakes


def send(host, text):
    (host.folder / "fetalclip" / "command.sh").write_text(f"{text}\n")


def attempt(host, number):
    return host.bash(host.folder / "fetalclip" / "tpu_vm_job.sh", number)


@pytest.mark.parametrize(
    ("status", "told"), [(0, 0), (75, 75), (2, 64), (1, 70), (137, 70), (255, 70)]
)
def test_its_status_says_what_became_of_the_command(host, status, told):
    send(host, f'echo "step 1 $FETALCLIP_STOPPED_STATUS"; exit {status}')
    done = attempt(host, "a")
    assert (done.returncode, done.stdout) == (told, "step 1 75\n")
    assert (host.folder / "setup").read_text() == "mounted\n"


def test_an_attempt_is_run_once_however_often_it_is_asked_after(host):
    send(host, 'echo ran >>"$FAKES/ran"; exit 75')
    assert [attempt(host, "a").returncode for _ in range(2)] == [75, 75]
    assert (host.folder / "ran").read_text() == "ran\n"
    assert attempt(host, "b").returncode == 75
    assert (host.folder / "ran").read_text() == "ran\n" * 2


def test_the_command_outlives_the_connection(host):
    waits = 'until [ -e "$FAKES/go" ]; do /bin/sleep 0.05; done; echo done'
    send(host, waits)
    script = host.folder / "fetalclip" / "tpu_vm_job.sh"
    watcher = subprocess.Popen(
        ["/bin/bash", script, "a"],
        env=host.environment,
        start_new_session=True,
        # What starts the tests may have told all its processes to outlive a hang-up.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    while not (host.folder / "fetalclip" / "pid").exists():
        time.sleep(0.05)
    time.sleep(0.2)
    subprocess.run(["kill", "-HUP", "--", f"-{watcher.pid}"], check=True)
    assert watcher.wait(timeout=60) == -signal.SIGHUP
    send(host, "another")
    assert attempt(host, "b").returncode == 66
    send(host, waits)
    host.write("go")
    done = attempt(host, "a")
    assert (done.returncode, done.stdout) == (0, "done\n")


def test_an_installation_that_fails_shows_why(host):
    host.program("python3", "echo no network; exit 1")
    send(host, "true")
    done = attempt(host, "a")
    assert done.returncode == 65
    assert done.stderr == "no network\n"
