"""Simplification: the same step with fewer nodes and with dims that can be split.

Passes in execution order with the rules of this package, until nothing changes; what nothing
reads is dropped.
Values do not change beyond rounding: a division by one is left out, no sum is reordered.
"""

from collections.abc import Mapping
from types import MappingProxyType

from weft.capture.simplify.constants import CONSTANTS
from weft.capture.simplify.products import PRODUCTS
from weft.capture.simplify.rewriter import Rewriter, Rule
from weft.capture.simplify.sharing import share_reductions, turn_products
from weft.capture.simplify.unmerge import UNMERGE
from weft.capture.simplify.views import VIEWS
from weft.program.graph import Program, compact

__all__ = ["simplify"]

_FAMILIES = (VIEWS, CONSTANTS, UNMERGE, PRODUCTS)

_RULES: Mapping[str, tuple[Rule, ...]] = MappingProxyType(
    {
        op: tuple(rule for family in _FAMILIES for rule in family.get(op, ()))
        for op in dict.fromkeys(op for family in _FAMILIES for op in family)
    }
)


def simplify(program: Program) -> Program:
    """The same program in its simplest form.

    Simplifying twice gives what simplifying once gives.
    """
    while True:
        simpler = compact(Rewriter(_RULES).run(program))
        if simpler.digest == program.digest:
            return share_reductions(turn_products(program))
        program = simpler
