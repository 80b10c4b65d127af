"""Rules of what comes from nowhere: inputs and tensors made in place, cut as one likes."""

from __future__ import annotations

from collections.abc import Iterator

from weft.parallel.placement import PARTIAL
from weft.parallel.rules.rule import Call, Rule

__all__ = ["create_rules", "full_rules"]


def create_rules(call: Call) -> Iterator[Rule]:
    """Rules of input, iota and uniform: any dim. Operands (a seed) are whole."""
    for dim in range(len(call.outputs[0].shape)):
        yield call.rule((dim,))


def full_rules(call: Call) -> Iterator[Rule]:
    """Rules of a constant: any dim; zeros are also summands of zeros."""
    yield from create_rules(call)
    if call.number(1, 1) == 0:
        yield call.rule((PARTIAL,))
