"""Training of networks (needs torch)."""

from videosr.training.trainer import run

__all__ = ["run"]
