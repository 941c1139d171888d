"""Programs of schedulers and clouds that record how they are called, and play what a test says."""

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Fakes:
    """A folder that is first on PATH, and one where its programs find and leave what is played."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.programs = folder / "bin"
        self.programs.mkdir(parents=True)
        self.environment = os.environ | {
            "PATH": f"{self.programs}:/usr/bin:/bin",
            "FETALCLIP_VENV": str(folder / "no_venv"),
            "FAKES": str(folder),
            "HOME": str(folder),
        }

    def program(self, name: str, body: str = "") -> None:
        """A program of bash; each line it writes to $FAKES/calls is what it was called with."""
        path = self.programs / name
        record = f"""printf '%s\\n' "{name}${{*:+ $*}}" >>"$FAKES/calls"\n"""
        path.write_text(f"#!/usr/bin/env bash\n{record}{body}\n")
        path.chmod(0o755)

    def calls(self, *starts: str) -> list[str]:
        """What programs were called with, in order; all, or those that start so."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(starts or "")]

    def write(self, name: str, *lines: object) -> None:
        (self.folder / name).write_text("".join(f"{line}\n" for line in lines))

    def launch(self, script: str, *arguments: object) -> subprocess.CompletedProcess:
        return self.bash(ROOT / "launch" / script, *arguments)

    def bash(self, *arguments: object, stdin: str = "", **more: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["/bin/bash", *map(str, arguments)],
            cwd=self.folder,
            env=self.environment | more,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture
def fakes(tmp_path):
    found = Fakes(tmp_path / "fakes")
    found.program("sleep", "/bin/sleep 0.02")
    return found
