import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAUNCHERS = {
    "slurm.sh": [],
    "tpu_vm.sh": ["--name=a", "--zone=z", "--topology=v5e:4x4"],
    "gke.sh": ["--name=a", "--image=i", "--topology=v5e:4x4"],
}
COMMAND = ["--", "fetalclip", "train", "--config", "c.py", "--workdir", "/disk/run"]


def test_shellcheck_finds_nothing_in_any_script():
    program = shutil.which("shellcheck", path=pathlib.Path(sys.executable).parent)
    program = program or shutil.which("shellcheck")
    assert program, "shellcheck is missing: pip install -e '.[test]'"
    scripts = [*ROOT.glob("launch/*.sh"), *ROOT.glob("tests/launch/*.sh"), ROOT / ".ci" / "run"]
    found = subprocess.run([program, "-x", *scripts], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout == ""


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--noodles", "2", *COMMAND], "unknown option --noodles; --help lists what there is"),
        (["--name", *COMMAND], "--name needs a value"),
        (["--name=", *COMMAND], "--name needs a value"),
        (["--dry-run=1", *COMMAND], "--dry-run takes no value (given: 1)"),
        (["--name", "A_b!", *COMMAND], "--name A_b!: use "),
        (["--restarts", "many", *COMMAND], "--restarts many is not a whole number from 0"),
        (["fetalclip", "train"], "unexpected 'fetalclip': options come first, then --"),
        (["--dry-run"], "no command: give it after --"),
        (["--dry-run", "--"], "no command: give it after --"),
        (["--dry-run", "--", "python", "foo.py"], "'python' is not fetalclip; the command is one "),
        (["--dry-run", *COMMAND[:-2]], "fetalclip train needs --workdir, the folder it goes on in"),
        (["--dry-run", "--", "fetalclip", "sweep"], "fetalclip sweep needs --workdir"),
    ],
)
def test_what_cannot_be_meant_is_one_line(fakes, launcher, arguments, message):
    done = fakes.launch(launcher, *LAUNCHERS[launcher], *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("launcher", "tool"), [("slurm.sh", "sbatch"), ("tpu_vm.sh", "gcloud"), ("gke.sh", "kubectl")]
)
def test_without_its_tool_only_a_dry_run_works(fakes, launcher, tool):
    # Nothing but what the scripts themselves need, for the tool may be installed here.
    fakes.environment["PATH"] = str(fakes.programs)
    for name in ("awk", "cat", "dirname", "grep", "paste", "sed", "tr", "env", "bash"):
        (fakes.programs / name).symlink_to(shutil.which(name))
    done = fakes.launch(launcher, *LAUNCHERS[launcher], *COMMAND)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tool} is not installed here: ")
    assert done.stderr.count("\n") == 1
    assert fakes.launch(launcher, *LAUNCHERS[launcher], "--dry-run", *COMMAND).returncode == 0


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_help_is_the_comment_at_the_top(fakes, launcher):
    done = fakes.launch(launcher, "--help")
    assert done.returncode == 0
    assert f"bash launch/{launcher} " in done.stdout
    assert "--dry-run" in done.stdout
    assert "set -euo" not in done.stdout


@pytest.mark.parametrize("launcher", ["tpu_vm.sh", "gke.sh"])
def test_a_workdir_on_the_disk_of_a_host_is_refused(fakes, launcher):
    command = ["--", "fetalclip", "train", "--workdir=runs/mine"]
    done = fakes.launch(launcher, *LAUNCHERS[launcher], "--dry-run", *command)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --workdir runs/mine would be lost with its host; give a ")
    assert "gs://BUCKET/runs/mine" in done.stderr


def test_words_of_a_command_reach_it_as_they_were(fakes):
    words = ["fetalclip", "a b", "it's", '"$HOME" $(x) `y`', "back\\slash", "*", "é", ""]
    fakes.program("sbatch", 'cat >"$FAKES/script"')
    fakes.launch("slurm.sh", "--", *words)
    script = (fakes.folder / "script").read_text()
    show = script.split("# shellcheck")[0] + "\nprintf '%s\\n' \"${command[@]}\""
    assert fakes.bash("-c", show).stdout.splitlines() == words
