"""The compiler for TPUs, which works where there is none."""

import re
from importlib import metadata

# With these it neither looks for a TPU around it, nor minds another process that has it open, nor
# writes of both to the terminal.
ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_LOG_DIR": "disabled",
}


def asked_version() -> str:
    """What the installed jax names in its extra `tpu`, such as "0.0.42.*"."""
    for requirement in metadata.requires("jax") or ():
        if found := re.match(r"libtpu\s*==\s*([\w.*]+)", requirement):
            return found.group(1)
    raise ValueError(
        f"jax {metadata.version('jax')} names no libtpu in its extra `tpu`; plan with --devices N"
    )


def version() -> str | None:
    """The installed one's, None where there is none."""
    try:
        return metadata.version("libtpu")
    except metadata.PackageNotFoundError:
        return None


def check() -> str:
    """The installed version.

    Raises:
      ValueError: none is installed, or one that the installed jax does not go with.
    """
    found, asked = version(), asked_version()
    install = f"pip install 'libtpu=={asked}'"
    if found is None:
        raise ValueError(
            f"a TPU's step is compiled by libtpu, which is not installed; {install} (or the extra "
            "`plan`), or plan for simulated devices with --devices N"
        )
    if not re.fullmatch(re.escape(asked).replace(r"\*", r"\w+(\.\w+)*"), found):
        raise ValueError(
            f"libtpu {found} is installed, and jax {metadata.version('jax')} asks for {asked}; "
            f"{install}"
        )
    return found
