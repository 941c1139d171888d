"""The `fetalclip` command: joins the subcommands, and ends their errors as one line.

Errors a user can cause are `ValueError`s; they are printed without a traceback.
"""

import argparse
import importlib
import os
import sys
import warnings

from fetalclip_jax import compilation_cache, host_memory

COMMANDS = (
    *("train", "sweep", "plan", "prepare", "import", "export"),
    *("evaluate", "embed", "explain", "score", "report"),
)


def entry_point() -> None:
    sys.exit(main())


def main(argv: list[str] | None = None) -> int:
    """Runs one subcommand; the process's exit status."""
    parser = _parser()
    given, rest = parser.parse_known_args(argv)
    if rest and not hasattr(given, "config"):
        parser.error(f"unknown arguments: {' '.join(rest)}")
    # Set before JAX and TFDS start; their notices are not about the user's run.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    compilation_cache.enable()
    host_memory.keep()
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "30")  # a log file keeps every redrawn bar
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        return given.run(given, rest) or 0
    except (ValueError, OSError) as error:
        if os.environ.get("FETALCLIP_TRACEBACK"):
            raise
        print(f"fetalclip {given.command}: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fetalclip", description=__import__(__package__).__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = "import_" if name == "import" else name  # a keyword is no module's name
        command = importlib.import_module(f"fetalclip_jax.commands.{module}")
        added = commands.add_parser(
            name,
            help=command.SUMMARY,
            description=command.SUMMARY,
            epilog=f"example:\n  {command.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=command.run)
        command.add_arguments(added)
    return parser


if __name__ == "__main__":
    entry_point()
