"""What training minimises, in two halves: what is computed per example, and what compares them.

To add one, write a class with these methods and give it a line in `KINDS`.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from fetalclip_jax.losses import sigmoid_contrastive, softmax_contrastive
from fetalclip_jax.losses.contrastive import EXCHANGES
from fetalclip_jax.models import lora
from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.models.preprocess import normalise
from fetalclip_jax.training import consistency

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
            and `record` [B], the number of each example in its data set; `label` [B] where the
            model has a head, an index of its classes; `second_image`, like `image`, of what
            another machine shows of the same, where the objective asks for it.
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
    """CLIP's softmax loss (Radford et al. 2021), with several positives where captions repeat.

    Attributes:
      model: whose features are compared.
      options: `block_size`, `mesh` and `exchange` of the losses: how they are computed.
    """

    model: CLIP
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    frozen: Any = ()

    def encode(self, params, frozen, batch, keys) -> Features:
        image_features, text_features, _ = self.model.apply(
            lora.collections(self.model, params), normalise(batch["image"]), batch["tokens"], keys
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
            **self.options,
        )


class SigmoidContrastive(Contrastive):
    """SigLIP's loss (Zhai et al. 2023), of a model with a logit bias."""

    def compare(self, params, frozen, features, step):
        loss, metrics = sigmoid_contrastive(
            features["image"],
            features["text"],
            jnp.exp(params["logit_scale"].astype(jnp.float32)),
            params["logit_bias"],
            caption_ids=features["caption_ids"],
            **self.options,
        )
        return loss, metrics | {"logit_bias": params["logit_bias"]}


@dataclasses.dataclass(frozen=True)
class Classify:
    """Cross entropy of a linear head on the image features: fine-tuning on labels.

    Texts take no part in it.

    Attributes:
      model: with a head.
    """

    model: CLIP
    frozen: Any = ()

    def encode(self, params, frozen, batch, keys) -> Features:
        variables = lora.collections(self.model, params)
        images = normalise(batch["image"])
        logits = self.model.apply(variables, images, keys, method=CLIP.classify)
        return {"logits": logits, "label": batch["label"]}

    def compare(self, params, frozen, features, step):
        logits, label = features["logits"], features["label"]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
        right = logits.argmax(axis=-1) == label
        return losses.mean(), {"accuracy": right.astype(jnp.float32).mean()}


def _softmax(model: CLIP, options: Mapping[str, Any]) -> Objective:
    bias = model.config.init_logit_bias
    if bias is not None:
        raise ValueError(
            f"config.loss.kind='softmax' would leave the bias of a model with "
            f"config.model.init_logit_bias={bias} untrained, for it changes no softmax; set "
            "config.loss.kind='sigmoid', or leave config.model.init_logit_bias out"
        )
    return Contrastive(model, options)


def _sigmoid(model: CLIP, options: Mapping[str, Any]) -> Objective:
    if model.config.init_logit_bias is None:
        raise ValueError(
            "config.loss.kind='sigmoid' needs a model with a logit bias, and "
            "config.model.init_logit_bias is None; set it to -10.0, and "
            f"config.model.init_logit_scale to the usual start beside it, {math.log(10.0):.4f} "
            "(log 10)"
        )
    return SigmoidContrastive(model, options)


def _classify(model: CLIP, options: Mapping[str, Any]) -> Objective:
    return Classify(model)


# Name -> function of the model and of the losses' options, as `Contrastive` has them.
KINDS = {"softmax": _softmax, "sigmoid": _sigmoid, "classify": _classify}


def create(config: Any, model: CLIP, mesh: Mesh) -> Objective:
    """The objective that `config.loss` describes.

    Args:
      config: `config.loss`, or a dictionary of its fields.
      model: to be trained.
      mesh: what batches are split over.

    Raises:
      ValueError: an unknown kind or exchange, a block size or weight below 0, or a model that the
        kind cannot train.
    """
    for name, known in (("kind", tuple(KINDS)), ("exchange", EXCHANGES)):
        if config[name] not in known:
            raise ValueError(
                f"config.loss.{name}={config[name]!r} is not one of {', '.join(known)}"
            )
    if config["block_size"] < 0:
        raise ValueError(
            f"config.loss.block_size={config['block_size']} is below 0; use the rows and columns "
            "of logits to have in memory at a time, or 0 for all"
        )
    options = {
        "block_size": config["block_size"] or None,
        "mesh": mesh,
        "exchange": config["exchange"],
    }
    target = KINDS[config["kind"]](model, options)
    weight, kind = config["consistency_weight"], config["consistency"]
    if kind not in consistency.KINDS:
        raise ValueError(
            f"config.loss.consistency={kind!r} is not one of {', '.join(consistency.KINDS)}"
        )
    if not 0 <= weight < math.inf:
        raise ValueError(
            f"config.loss.consistency_weight={weight} is not a number of 0 (no such term) or above"
        )
    if not weight:
        return target
    if not isinstance(target, Contrastive):
        raise ValueError(
            f"config.loss.consistency_weight={weight} is of losses that compare images with texts; "
            f"leave it at 0 with config.loss.kind={config['kind']!r}"
        )
    return consistency.Consistent(target, weight, kind)
