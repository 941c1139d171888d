"""A tiny run that `fetalclip train` made, for every command that reads one."""

import pytest

from fetalclip_jax import cli

EXPERIMENT = """
from tests.tiny import tiny_experiment

def get_config():
    config = tiny_experiment()
    config.data.phantom.update({"train_images": 48, "pool_images": 96, "test_images": 60})
    config.train.update({"study_every": 8, "studies": ("zero_shot.planes",)})
    return config
"""


@pytest.fixture(scope="session")
def config_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("configs") / "tiny.py"
    path.write_text(EXPERIMENT)
    return path


@pytest.fixture(scope="session")
def trained(config_file, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    assert cli.main(["train", "--config", str(config_file), f"--workdir={workdir}"]) == 0
    return workdir


@pytest.fixture
def run(capsys):
    """Runs a command; what it printed, its error and its exit status."""

    def run(*arguments):
        status = cli.main([str(one) for one in arguments])
        printed = capsys.readouterr()
        return printed.out, printed.err, status

    return run
