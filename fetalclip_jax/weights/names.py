"""Names of tensors without what trainers put before them."""

from collections.abc import Mapping
from typing import Any

# Put by data parallelism, compilation, sharding and recomputation, before or within a name.
_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
# First parts of names of the formats themselves.
_TOWERS = frozenset({"visual", "transformer", "text", "vision_model", "text_model"})


def without_prefixes(entries: Mapping[str, Any]) -> dict[str, Any]:
    """The entries under the names that a bare CLIP has.

    What wrappers put into a name is cut wherever it stands; so is whatever part all names begin
    with, such as `state_dict.`, or the attribute that a Lightning module holds its model by. Names
    stay as they are where two would become one.
    """
    parts = {name: [part for part in name.split(".") if part not in _WRAPPERS] for name in entries}
    while (
        all(len(of_name) > 1 for of_name in parts.values())
        and len(first := {of_name[0] for of_name in parts.values()}) == 1
        and not first & _TOWERS
    ):
        parts = {name: of_name[1:] for name, of_name in parts.items()}
    cut = {".".join(parts[name]): entry for name, entry in entries.items()}
    return cut if len(cut) == len(entries) else dict(entries)
