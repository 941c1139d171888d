"""Pages drawn from results of one or many models."""

from fetalclip_jax.reports.report import build

__all__ = ["build"]
