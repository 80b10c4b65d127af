"""Simplification: the same step with fewer nodes and with dims that can be split.

Passes in execution order with the rules of this package, until nothing changes; what nothing
reads is dropped.
Values do not change beyond rounding: a division by one is left out, no sum is reordered.
"""

from collections.abc import Mapping
from types import MappingProxyType

from weft.capture.simplify.blocks import BLOCKS
from weft.capture.simplify.constants import CONSTANTS
from weft.capture.simplify.products import PRODUCTS
from weft.capture.simplify.rewriter import Rewriter, Rule, Shape
from weft.capture.simplify.sharing import share_reductions, turn_products
from weft.capture.simplify.unmerge import UNMERGE
from weft.capture.simplify.views import VIEWS
from weft.program.graph import Program, compact

__all__ = ["simplify"]


def _joined(*families: Mapping[str, tuple[Rule, ...]]) -> Mapping[str, tuple[Rule, ...]]:
    return MappingProxyType(
        {
            op: tuple(rule for family in families for rule in family.get(op, ()))
            for op in dict.fromkeys(op for family in families for op in family)
        }
    )


_RULES = _joined(VIEWS, CONSTANTS, UNMERGE, PRODUCTS)
_RULES_WITH_BLOCKS = _joined(VIEWS, BLOCKS, CONSTANTS, UNMERGE, PRODUCTS)


def simplify(program: Program, factors: frozenset[Shape] = frozenset()) -> Program:
    """The same program in its simplest form.

    Simplifying twice gives what simplifying once gives.

    Args:
        program: as traced.
        factors: (blocks, size of a block) of dims that parameters are held in; what flows from
            and to them is kept in blocks as well.
    """
    rules = _RULES_WITH_BLOCKS if factors else _RULES
    while True:
        simpler = compact(Rewriter(rules, factors).run(program))
        if simpler.digest == program.digest:
            return share_reductions(turn_products(program))
        program = simpler
