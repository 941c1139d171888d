"""The model that a run has saved, for whoever goes on with it: `load`, or another run."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from fetalclip_jax import storage, tokenizers
from fetalclip_jax.config import build_model, load_config
from fetalclip_jax.models import lora
from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.parallel import sharding
from fetalclip_jax.run import Run
from fetalclip_jax.training import checkpoint, retention, state


@dataclasses.dataclass(frozen=True)
class Saved:
    """A run, and one of its checkpoints.

    Attributes:
      workdir: the run's folder.
      which: of its checkpoints: a step, "best", or "" for the newest.
      config: of the run.
      tokenizer: of its model.
    """

    workdir: storage.Path
    which: str
    config: ConfigDict
    tokenizer: tokenizers.Tokenizer

    def read(self, mesh: Mesh, *, whole: bool = True) -> tuple[CLIP, dict[str, Any], Any]:
        """The model alone: adapters are merged into it, and its head stands beside it.

        Args:
          whole: on each device; otherwise divided as in training.

        Returns:
          The module, its parameters, and those of the head, or None without one.

        Raises:
          ValueError: no such checkpoint; as `checkpoint.restore_params`.
        """
        model = build_model(self.config)
        boxed = jax.eval_shape(lambda: state.initial_params(model, jax.random.key(0)))
        shardings = sharding.tree_shardings(boxed, mesh)
        if whole:
            shardings = jax.tree.map(lambda _: sharding.replicated(mesh), shardings)
        abstract = jax.tree.map(
            lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
            nn.meta.unbox(boxed),
            shardings,
        )
        params = checkpoint.restore_params(
            self.workdir, abstract, step=self._step(), tokenizer=self.tokenizer.fingerprint
        )
        return *lora.alone(model, params), params.get("head")

    def _step(self) -> int | None:
        if self.which == "best":
            return retention.best_step(self.workdir, self.config.train.keep_best)
        if self.which and not self.which.isdigit():
            raise ValueError(
                f"{self.workdir / 'checkpoints' / self.which} is no checkpoint; name a step or best"
            )
        return int(self.which) if self.which else None


def find(path: storage.Path) -> Saved | None:
    """The run that is at a path, or None where something else is, or nothing.

    Args:
      path: a workdir, for its newest checkpoint, or `WORKDIR/checkpoints/STEP` or `.../best`.

    Raises:
      ValueError: a run whose configuration or tokenizer cannot be read.
    """
    which = ""
    if path.parent.name == "checkpoints" and path.parent.is_dir():
        path, which = path.parent.parent, path.name
    if not Run(path).checkpoints.is_dir():
        return None
    return Saved(path, which, load_config(Run(path).config), tokenizers.load(Run(path).tokenizer))
