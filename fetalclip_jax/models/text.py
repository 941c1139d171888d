"""The text tower: a causal transformer read at the end-of-text token."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from fetalclip_jax.models.layers import layer_norm, logical
from fetalclip_jax.models.presets import TextConfig
from fetalclip_jax.models.transformer import Transformer
from fetalclip_jax.parallel.sharding import by_example, whole_rows

_EMBEDDING_STDDEV = 0.02
# Sines, and as many cosines, in the embedding of a number.
_WAVES = 8


class TextTransformer(nn.Module):
    """Token ids to one projected feature each."""

    config: TextConfig
    embed_dim: int
    quick_gelu: bool = False
    scan_layers: bool = True
    remat: str = "none"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, tokens: Int[Array | np.ndarray, "B L"]) -> Float[Array, "B embed_dim"]:
        """Encodes ids of any length up to `context_length`.

        The largest id is the end of text. Attention is causal, so whatever follows it, padding
        included, changes nothing: cutting trailing padding gives the same features.

        Raises:
          ValueError: more tokens than `config.context_length`.
        """
        c = self.config
        length = tokens.shape[1]
        if length > c.context_length:
            raise ValueError(
                f"texts are {length} tokens long, the model's context_length is {c.context_length}"
            )
        embedding = self.param(
            "token_embedding",
            logical(_embedding_initialiser(c.number_ids), "vocab", "embed"),
            (c.vocab_size, c.width),
        )
        positions = self.param(
            "positional_embedding",
            logical(nn.initializers.normal(0.01), None, "embed"),
            (c.context_length, c.width),
        )
        # Added in float32 whatever the parameters are stored in.
        x = whole_rows(embedding)[tokens].astype(jnp.float32)
        x += positions[:length].astype(jnp.float32)
        x = by_example(x.astype(self.dtype))  # B L D
        end_of_text = tokens.argmax(axis=-1)[:, None, None]
        x = Transformer(
            layers=c.layers,
            heads=c.heads,
            mlp_width=int(c.width * c.mlp_ratio),
            causal=True,
            quick_gelu=self.quick_gelu,
            ls_init_value=c.ls_init_value,
            scan_layers=self.scan_layers,
            remat=self.remat,
            dtype=self.dtype,
            name="transformer",
        )(x, lambda x: jnp.take_along_axis(x, end_of_text, axis=1))  # B 1 D
        x = layer_norm("ln_final")(x[:, 0]).astype(self.dtype)
        projection = self.param(
            "projection",
            logical(nn.initializers.normal(c.width**-0.5), "embed", "joint"),
            (c.width, self.embed_dim),
        )
        return by_example(x @ projection.astype(self.dtype))


def _embedding_initialiser(number_ids: Sequence[tuple[int, int]]):
    """Noise of deviation 0.02; for numbers mostly sines and cosines of the number.

    Each run of numbers gets directions of its own: 20 weeks and 0.20 mm are not alike.
    """

    def initialise(key, shape, dtype=jnp.float32):
        table = nn.initializers.normal(_EMBEDDING_STDDEV)(key, shape, dtype)
        for number, (first, count) in enumerate(number_ids):
            if first + count > shape[0]:
                raise ValueError(
                    f"text_cfg.number_ids has ({first}, {count}), text_cfg.vocab_size is "
                    f"{shape[0]}; ids must lie below it"
                )
            # From a slope over the whole run to a period of a quarter of it. Shorter waves would
            # tell neighbours apart sooner, but say nothing sensible of numbers rarely seen.
            periods = jnp.geomspace(4 * count, count / 4, _WAVES)
            angles = 2 * jnp.pi * jnp.arange(count)[:, None] / periods  # count W
            waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)  # count 2W
            directions = jax.random.normal(jax.random.fold_in(key, number), (2 * _WAVES, shape[1]))
            code = _EMBEDDING_STDDEV * _WAVES**-0.5 * (waves @ directions)
            rows = slice(first, first + count)
            table = table.at[rows].set(0.1 * table[rows] + code.astype(dtype))
        return table

    return initialise
