"""Contrastive losses: two functions, each the same value however it is computed."""

from fetalclip_jax.losses.contrastive import sigmoid_contrastive as sigmoid_contrastive
from fetalclip_jax.losses.contrastive import softmax_contrastive as softmax_contrastive
