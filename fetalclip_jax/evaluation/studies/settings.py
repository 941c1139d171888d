"""Options of a study: keyword arguments, checked, with defaults that a protocol chooses."""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

PROTOCOL_OPTION = "protocol"
# Options under any value of which a protocol is still that protocol.
_PART_OF_NO_PROTOCOL = (
    *("resample_by", "resamples", "redraws", "seed", "progress"),
    *("prompts", "brain_prompts", "templates", "splits"),
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Options that every study has.

    Attributes:
      protocol: "paper", or another name under which defaults were chosen.
      resample_by: what a bootstrap draws, "patient" or "image" (the paper's).
      resamples: bootstrap samples.
      seed: of the bootstrap, and of every draw that the study makes.
    """

    protocol: str = "default"
    resample_by: str = "patient"
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self):
        if self.resample_by not in ("patient", "image"):
            raise ValueError(
                f"resample_by must be 'patient' or 'image', found {self.resample_by!r}"
            )
        if self.resamples < 1 or self.seed < 0:
            raise ValueError(
                f"resamples={self.resamples} must be at least 1 and seed={self.seed} at least 0"
            )

    def to_json(self, leave_out: Iterable[str] = ()) -> dict[str, Any]:
        """The effective settings, as `Result.protocol` holds them."""
        values = dataclasses.asdict(self)
        name = values.pop(PROTOCOL_OPTION)
        return {"name": name} | {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in values.items()
            if key not in leave_out
        }


AnySettings = TypeVar("AnySettings", bound=Settings)


def resolve(
    study: str,
    settings: type[AnySettings],
    protocols: Mapping[str, Mapping[str, Any]],
    options: Mapping[str, Any],
) -> AnySettings:
    """Settings of `study`: its defaults, then those of the protocol, then `options`.

    Args:
      protocols: name -> what it changes of the defaults; "default" means the first.

    Raises:
      ValueError: an unknown protocol or option, or a value of the wrong kind.
    """
    options = dict(options)
    protocol = options.pop(PROTOCOL_OPTION, "default")
    if protocol == "default":
        protocol = next(iter(protocols))
    if protocol not in protocols:
        raise ValueError(
            f"{study}: protocol {protocol!r} is unknown; there are {', '.join(protocols)}"
        )
    fields = {field.name: field for field in dataclasses.fields(settings)}
    unknown = sorted(options.keys() - fields.keys())
    if unknown:
        raise ValueError(f"{study} has no option {unknown[0]!r}; it has {', '.join(fields)}")
    checked = {
        name: _checked(study, name, value, fields[name].default) for name, value in options.items()
    }
    default = settings(**{PROTOCOL_OPTION: protocol, **protocols[protocol]})
    changed = sorted(
        name
        for name, value in checked.items()
        if value != getattr(default, name) and name not in _PART_OF_NO_PROTOCOL
    )
    protocol_name = f"{protocol}, changed: {', '.join(changed)}" if changed else protocol
    try:
        return settings(**{PROTOCOL_OPTION: protocol_name, **protocols[protocol], **checked})
    except ValueError as error:
        raise ValueError(f"{study}: {error}") from error


def _checked(study: str, name: str, value: Any, default: Any) -> Any:
    """`value` in the type of the default; files and configurations know no tuples."""
    if isinstance(default, tuple) and isinstance(value, (list, tuple)):
        return tuple(value)
    if isinstance(default, str) and isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(default):
        raise ValueError(
            f"{study}: {name}={value!r} is a {type(value).__name__}; give a "
            f"{type(default).__name__} such as {default!r}"
        )
    return value
