"""Rows of a batch: what data parallelism and micro-batches share out."""

from __future__ import annotations

import math

from weft.program.graph import Program, Role

__all__ = ["batch_rows"]


def batch_rows(program: Program) -> int:
    """Rows that every entry of the batch divides into: their greatest common divisor."""
    shapes = (
        program.nodes[i.node].outputs[0].shape for i in program.inputs if i.role is Role.BATCH
    )
    return math.gcd(*(shape[0] for shape in shapes if shape))
