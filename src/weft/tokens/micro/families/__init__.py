"""Production functions: how quality follows from what goes in, up to a level."""

from weft.tokens.micro.families.ces import Ces
from weft.tokens.micro.families.cobb_douglas import CobbDouglas
from weft.tokens.micro.families.family import Family, Priced
from weft.tokens.micro.families.translog import Translog

__all__ = ["Ces", "CobbDouglas", "Family", "Priced", "Translog"]
