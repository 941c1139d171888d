"""The checks of `data.checks` around any source, for whoever reads it directly."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from fetalclip_jax.data.checks import check_example, ranges_of
from fetalclip_jax.data.columns import columns
from fetalclip_jax.data.example import NO_IMAGE, BadExampleError, Example
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

    def bare(self, index: int) -> Example:
        """The example without its image; raises BadExampleError where it cannot be true."""
        # A pixel stands in for the image that is not there.
        shown = dataclasses.replace(self.source.bare(index), image=np.zeros((1, 1), np.uint8))
        return dataclasses.replace(check_example(shown, ranges_of(self.source)), image=NO_IMAGE)

    def metadata(self) -> dict[str, np.ndarray]:
        """`data.columns` of all examples in order, without reading an image, [n] each.

        Of an example that cannot be true only the id is known, and no pixel spacing of any: it
        depends on the size of the image.
        """
        return columns((self._known(index), None) for index in range(len(self)))

    def _known(self, index: int) -> Example:
        try:
            return self.bare(index)
        except BadExampleError as error:
            return Example(error.example_id, NO_IMAGE)
