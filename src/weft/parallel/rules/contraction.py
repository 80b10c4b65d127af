"""Rules of einsum, letter by letter."""

from __future__ import annotations

from collections.abc import Iterator

from weft.parallel.placement import PARTIAL, REPLICATED, Placement
from weft.parallel.rules.rule import Call, Rule

__all__ = ["einsum_rules"]


def einsum_rules(call: Call) -> Iterator[Rule]:
    """Rules of a product of two tensors.

    Cutting a letter cuts every operand that has it. A letter of the result cuts the result; a
    letter that is summed away leaves summands. The product is linear in each operand.

    Example:
        >>> from weft.program.types import DType, TensorType
        >>> t = TensorType(DType.F32, (4, 4))
        >>> call = Call(op="einsum", args=("ij,jk->ik",), operands=(t, t), outputs=(t,))
        >>> [str(rule) for rule in einsum_rules(call)]
        ['S0 <- S0,R', 'P <- S1,S0', 'S1 <- R,S1', 'P <- P,R', 'P <- R,P']
    """
    left, right, out = _letters(call)
    for letter in dict.fromkeys(left + right):
        made = out.index(letter) if letter in out else PARTIAL
        yield Rule((made,), (_dim(letter, left), _dim(letter, right)))
    yield Rule((PARTIAL,), (PARTIAL, REPLICATED))
    yield Rule((PARTIAL,), (REPLICATED, PARTIAL))


def _letters(call: Call) -> tuple[str, str, str]:
    operands, _, out = str(call.args[0]).replace(" ", "").partition("->")
    left, _, right = operands.partition(",")
    return left, right, out


def _dim(letter: str, letters: str) -> Placement:
    return letters.index(letter) if letter in letters else REPLICATED
