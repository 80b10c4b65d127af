"""Larger batches of small models, whose steps take slow ranks tenths of a second."""

from __future__ import annotations

from dataclasses import replace

from mlp import mlp_wide
from translator import translator_tiny
from vit import vit_tiny

from weft.capture import Workload

__all__ = ["mlp_of_2048", "translator_of_512", "vit_of_4096"]


def mlp_of_2048() -> Workload:
    """8,192 hidden units, 2,048 digits."""
    return replace(mlp_wide(batch=2048), name="mlp_of_2048")


def vit_of_4096() -> Workload:
    """A small vision transformer, 4,096 digits."""
    return replace(vit_tiny(batch=4096), name="vit_of_4096")


def translator_of_512() -> Workload:
    """A small encoder and decoder, 512 pairs."""
    return replace(translator_tiny(batch=512), name="translator_of_512")
