"""Contrastive losses."""

from fetalclip_jax.losses.contrastive import softmax_contrastive as softmax_contrastive
