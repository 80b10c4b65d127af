"""From traced ATen calls to the operators of `weft.program.operators`, call by call.

Each rule turns one ATen operator into one or a few nodes with arguments in the table's form:
dims counted from 0, sizes written out, element types equal, plain numbers in `Scalar` forms.
Nothing is optimised here: that is `weft.capture.simplify`.
"""

from collections.abc import Mapping
from types import MappingProxyType

from torch._ops import OpOverload

from weft.capture.canonical.create import CREATE, constant
from weft.capture.canonical.emit import Emit, Rule
from weft.capture.canonical.index import INDEX
from weft.capture.canonical.pointwise import POINTWISE
from weft.capture.canonical.reduce import REDUCE
from weft.capture.canonical.shape import SHAPE

__all__ = ["RULES", "Emit", "Rule", "constant"]

RULES: Mapping[OpOverload, Rule] = MappingProxyType(POINTWISE | CREATE | INDEX | REDUCE | SHAPE)
"""The rule of each ATen operator that stays: it adds nodes and returns their values."""
