"""What training minimises, in two halves: what is computed per example, and what compares them.

To add one, write a class with these methods and give it a line in `KINDS`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from fetalclip_jax.losses import softmax_contrastive
from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.models.preprocess import normalise

# A tree of arrays that all have the examples of the batch along their first axis.
Features = Any


@runtime_checkable
class Objective(Protocol):
    """What training minimises.

    Attributes:
      frozen: parameters that take part and are not trained, such as a teacher's; an argument of
        the compiled step, not constants in it.
    """

    frozen: Any

    def encode(
        self,
        params: Any,
        frozen: Any,
        batch: Mapping[str, jax.Array],
        keys: Key[Array, "B"] | None,
    ) -> Features:
        """Features of each example by itself: a batch may be encoded in parts, in any order.

        Args:
          batch: uint8 `image` [B H W] or [B H W 3], `tokens` [B L], `caption_ids` [B] or [B n],
            and `record` [B], the number of each example in its data set.
          keys: a random key for each example; None for the model's evaluation.
        """
        ...

    def compare(
        self, params: Any, frozen: Any, features: Features, step: Int[Array, ""]
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Loss and metrics of the features of the whole global batch at an optimisation step."""
        ...


@dataclasses.dataclass(frozen=True)
class Contrastive:
    """CLIP's softmax loss (Radford et al. 2021), with several positives where captions repeat."""

    model: CLIP
    frozen: Any = ()

    def encode(self, params, frozen, batch, keys) -> Features:
        image_features, text_features, _ = self.model.apply(
            {"params": params}, normalise(batch["image"]), batch["tokens"], keys
        )
        return {
            "image": image_features,
            "text": text_features,
            "caption_ids": batch["caption_ids"],
        }

    def compare(self, params, frozen, features, step):
        return softmax_contrastive(
            features["image"],
            features["text"],
            jnp.exp(params["logit_scale"].astype(jnp.float32)),
            caption_ids=features["caption_ids"],
        )


KINDS = {"softmax": Contrastive}


def create(kind: str, model: CLIP) -> Objective:
    """The objective that `config.loss.kind` names.

    Raises:
      ValueError: an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"config.loss.kind={kind!r} is not one of {', '.join(KINDS)}")
    return KINDS[kind](model)
