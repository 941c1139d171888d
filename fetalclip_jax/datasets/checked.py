"""The checks of `data.checks` around any source, for whoever reads it directly."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from fetalclip_jax.data.checks import check_example, ranges_of
from fetalclip_jax.data.example import Example
from fetalclip_jax.datasets.protocol import Source, SourceFacts


@dataclasses.dataclass(frozen=True)
class CheckedSource:
    """A source whose examples hold nothing that cannot be true."""

    source: Source

    @property
    def facts(self) -> SourceFacts:
        return self.source.facts

    @property
    def description(self) -> dict[str, Any]:
        return self.source.description

    @property
    def missing(self) -> tuple[str, ...]:
        return self.source.missing

    @property
    def notes(self) -> tuple[str, ...]:
        return self.source.notes

    @property
    def files(self) -> Mapping[str, tuple[int, int]]:
        return self.source.files

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        """Raises BadExampleError where the example cannot be read or cannot be true."""
        return check_example(self.source[index], ranges_of(self.source))
