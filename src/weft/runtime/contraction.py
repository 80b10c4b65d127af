"""A two-operand einsum as one (batched) matrix product between cheap reshapes.

The letters of an equation fall into batch (in both operands and the result), rows (in the
first), columns (in the second) and contracted ones (in both, not in the result). Each operand
is permuted to [batch, rows, contracted] or [batch, contracted, columns] and merged; merging
copies only if the memory order does not allow a view. Pure planning: no tensor is touched.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from weft.program.signatures.products import contraction_sizes

__all__ = ["Operand", "Product", "plan_product"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """How an operand becomes a matrix: sum over `summed`, permute to `order`, reshape to `size`."""

    position: int
    summed: tuple[int, ...]
    order: tuple[int, ...]
    size: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """The form of an einsum.

    Attributes:
        kind: "mm" [m,k] x [k,n], "bmm" [b,m,k] x [b,k,n], or "mul" [b,m,1] x [b,1,n] where
            nothing is contracted.
        left, right: the operands as matrices; `position` says which argument they are.
        size: the result with its letters split again.
        order: permutation from there to the equation's order.
    """

    kind: str
    left: Operand
    right: Operand
    size: tuple[int, ...]
    order: tuple[int, ...]


def plan_product(equation: str, a: tuple[int, ...], b: tuple[int, ...]) -> Product:
    """The cheapest product form of an einsum.

    Where the result starts with a letter of the second operand, the operands change places,
    so that the result comes out in its own order.

    Args:
        equation: such as "btd,ed->bte"; each letter at most once in an operand.
        a, b: shapes of the operands.

    Raises:
        VerifyError: the equation does not fit the shapes.

    Example:
        >>> form = plan_product("btd,ed->bte", (2, 3, 4), (5, 4))
        >>> form.kind, form.left.size, form.right.order, form.size
        ('mm', (6, 4), (1, 0), (2, 3, 5))
    """
    sizes = contraction_sizes(equation, a, b)
    terms, _, out = equation.partition("->")
    first, _, second = terms.partition(",")
    own = [c for c in out if (c in first) != (c in second)]
    swap = bool(own) and own[0] in second
    left, right = (second, first) if swap else (first, second)
    batch = [c for c in out if c in first and c in second]
    rows = [c for c in out if c in left and c not in batch]
    columns = [c for c in out if c in right and c not in batch]
    # Merging is free for the operand whose own order the contracted letters keep; the larger
    # one decides.
    larger = first if math.prod(a) >= math.prod(b) else second
    contracted = [c for c in larger if c in first and c in second and c not in out]

    kind = "mul" if not contracted else "bmm" if batch else "mm"
    groups = (rows, columns, contracted, batch)
    m, n, k, g = (math.prod(sizes[c] for c in group) for group in groups)
    lead = () if kind == "mm" else (g,)
    made = batch + rows + columns
    return Product(
        kind=kind,
        left=_operand(int(swap), left, batch + rows + contracted, (*lead, m, k)),
        right=_operand(int(not swap), right, batch + contracted + columns, (*lead, k, n)),
        size=tuple(sizes[c] for c in made),
        order=tuple(made.index(c) for c in out),
    )


def _operand(position: int, letters: str, order: list[str], size: tuple[int, ...]) -> Operand:
    summed = tuple(dim for dim, c in enumerate(letters) if c not in order)
    kept = [c for c in letters if c in order]
    return Operand(
        position=position, summed=summed, order=tuple(kept.index(c) for c in order), size=size
    )
