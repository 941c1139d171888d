"""A term beside a contrastive loss: two pictures of one anatomy have features alike.

The pictures are by different machines, so what they do not share is no matter of anatomy. A
simulator can draw them; no data set of patients has them.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from fetalclip_jax.losses import softmax_contrastive
from fetalclip_jax.models import lora
from fetalclip_jax.models.clip import CLIP, unit_length
from fetalclip_jax.models.preprocess import normalise

KINDS = ("cosine", "contrastive")


@dataclasses.dataclass(frozen=True)
class Consistent:
    """A contrastive objective plus `weight` times how much the features of two pictures differ.

    Batches without second pictures, such as held-out ones, have the objective's own loss.

    Attributes:
      objective: compares images with texts, see `objective.Contrastive`.
      weight: above 0.
      kind: "cosine": one minus the cosine of both pictures, averaged over the batch.
        "contrastive": CLIP's loss between first and second pictures (as SimCLR, Chen et al. 2020,
        has it between two augmentations), whose scale is that of images and texts and is not
        trained by it. Pictures whose captions mean the same are positives of one another.
    """

    objective: Any
    weight: float
    kind: str

    @property
    def frozen(self) -> Any:
        return self.objective.frozen

    def encode(self, params, frozen, batch, keys):
        features = self.objective.encode(params, frozen, batch, keys)
        if "second_image" not in batch:
            return features
        model = self.objective.model
        if keys is not None:  # other patches are dropped of the second picture
            keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
        second = model.apply(
            lora.collections(model, params),
            normalise(batch["second_image"]),
            keys=keys,
            method=CLIP.encode_image,
        )
        return features | {"second_image": unit_length(second)}

    def compare(self, params, frozen, features, step):
        loss, metrics = self.objective.compare(params, frozen, features, step)
        if "second_image" not in features:
            return loss, metrics
        first, second = features["image"], features["second_image"]
        cosine = (first * second).sum(axis=-1).mean()
        term = 1 - cosine
        if self.kind == "contrastive":
            scale = jnp.exp(jax.lax.stop_gradient(params["logit_scale"]).astype(jnp.float32))
            term, _ = softmax_contrastive(
                first,
                second,
                scale,
                caption_ids=features["caption_ids"],
                **self.objective.options,
            )
        return loss + self.weight * term, metrics | {"second_image_cosine": cosine}
