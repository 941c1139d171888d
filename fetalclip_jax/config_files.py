"""Python files that make a configuration, and what a command line changes of it.

As ml_collections users write them: `x.py` with a function `get_config()`, and
`--config=x.py:argument --config.a.b=value`.
"""

import importlib.util
import inspect
import pathlib
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import ConfigDict

_MAIN = "get_config"
_GIVES = {_MAIN: "the configuration", "sweep": "the list of points, see docs/sweeps.md"}


def read(path: str) -> ConfigDict:
    """What `get_config` of a file gives.

    Args:
      path: `x.py` with a function `get_config()`, or `x.py:argument` for `get_config(argument)`.

    Raises:
      ValueError: no such file, an error in it, or no ConfigDict.
    """
    config = call(path, _MAIN)
    if not isinstance(config, ConfigDict):
        raise ValueError(
            f"--config={path}: get_config returns {type(config).__name__}, not a ConfigDict; let "
            "it change and return a default_config()"
        )
    return config


def call(path: str, name: str) -> Any:
    """What a function of a file gives.

    Args:
      path: as in `read`. An argument goes to `get_config`, and to others that take one.
      name: of the function.

    Raises:
      ValueError: no such file or function, or an error in it.
    """
    file, *argument = path.split(":", 1)
    function = _function(file, name)
    if name != _MAIN and not inspect.signature(function).parameters:
        argument = []
    return _call(function, file, argument)


def override(config: ConfigDict, overrides: Sequence[str], name: str) -> ConfigDict:
    """A configuration with `--config.a.b=value` overrides in it.

    Args:
      name: of the configuration, for errors.

    Raises:
      ValueError: a key that does not exist, or a value of the wrong type.
    """
    from absl import flags
    from ml_collections import config_flags

    asked = " ".join(overrides)
    values, command = flags.FlagValues(), ["fetalclip", *overrides]
    try:
        holder = config_flags.DEFINE_config_dict(
            "config", config, flag_values=values, sys_argv=command
        )
        left = values(command)
    except (AttributeError, KeyError, flags.UnrecognizedFlagError) as error:
        raise ValueError(f"{asked}: no such key in {name} ({one_line(error)})") from error
    except (flags.Error, TypeError, ValueError) as error:
        raise ValueError(f"{name} {asked}: {one_line(error)}") from error
    if left[1:]:
        raise ValueError(f"unknown arguments: {' '.join(left[1:])}")
    return holder.value


def _function(file: str, name: str) -> Callable[..., Any]:
    """The function of a name in a Python file."""
    if not pathlib.Path(file).is_file():
        raise ValueError(f"--config={file}: no such file")
    spec = importlib.util.spec_from_file_location("experiment_config", file)
    if spec is None:
        raise ValueError(f"--config={file}: not a Python file (name.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(_where(file, error)) from error
    if not callable(getattr(module, name, None)):
        what = _GIVES.get(name, "what is asked for")
        raise ValueError(f"--config={file} has no function {name}(); it makes and returns {what}")
    return getattr(module, name)


def _call(function: Callable[..., Any], file: str, argument: list[str]) -> Any:
    try:
        inspect.signature(function).bind(*argument)
    except TypeError as error:
        if argument:
            advice = f"takes no argument, {argument[0]!r} was given; leave :{argument[0]} out"
        else:
            advice = f"needs an argument; use --config={file}:ARGUMENT"
        raise ValueError(f"--config={file}: {function.__name__} {advice}") from error
    try:
        return function(*argument)
    except Exception as error:
        raise ValueError(_where(file, error)) from error


def _where(file: str, error: Exception) -> str:
    """An error in a configuration file in one line, with the line of that file."""
    here = pathlib.Path(file).resolve()
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if pathlib.Path(frame.filename).resolve() == here
    ]
    if isinstance(error, SyntaxError) and pathlib.Path(error.filename or "").resolve() == here:
        lines = [error.lineno]
    place = f", line {lines[-1]}" if lines else ""
    return f"--config={file}{place}: {type(error).__name__}: {one_line(error)}"


def one_line(error: Exception) -> str:
    """The message of any library's error in one line."""
    # A KeyError's own text is the representation of its message.
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(text).split())
