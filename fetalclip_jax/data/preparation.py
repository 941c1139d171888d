"""Encoding a source's examples as records, in order."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from fetalclip_jax.data.checks import ranges_of
from fetalclip_jax.data.encoding import encode_example
from fetalclip_jax.data.example import BadExampleError
from fetalclip_jax.data.workers import ordered_map


def encoded_records(
    source, image_size: int, workers: int = 0
) -> Iterator[dict[str, Any] | BadExampleError]:
    """The record of every example of `source`, or the error that replaces it, in index order.

    Args:
      source: anything with `__len__` and `__getitem__(int) -> Example`; picklable if `workers`.
      image_size: side of the stored square images in pixels.
      workers: see `data.workers.ordered_map`.

    Raises:
      ValueError: as `ordered_map`. Errors of `source` other than BadExampleError are raised too.
    """
    with ordered_map(_Encode(source, image_size), len(source), workers) as records:
        yield from records


@dataclasses.dataclass(frozen=True)
class _Encode:
    source: Any
    image_size: int

    def __call__(self, index: int) -> dict[str, Any] | BadExampleError:
        ranges, with_extra = ranges_of(self.source), stores_extra(self.source)
        try:
            return encode_example(
                self.source[index], self.image_size, ranges=ranges, with_extra=with_extra
            )
        except BadExampleError as error:
            return error


def stores_second_images(source) -> bool:
    """Whether records of `source` have a column for `Example.second_image`."""
    return getattr(getattr(source, "facts", None), "second_images", False)


def stores_extra(source) -> bool:
    """Whether records of `source` have a column for `Example.extra`."""
    facts = getattr(source, "facts", None)
    return facts is None or bool(facts.group_columns)
