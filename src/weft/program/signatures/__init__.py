"""What each operator takes and makes: one function an operator, from arguments to output types.

A signature receives the arguments of a node with every value replaced by its type. Its
parameter names and defaults are the operator's schema; its annotations are checked by
`weft.program.infer` before it is called. Dims count from 0 and bounds of slices lie inside the
tensor, so that nobody downstream has to normalise them. An output that an output mask switches
off has the shape [0].
"""

from collections.abc import Mapping
from types import MappingProxyType

from weft.program.signatures.index import INDEX
from weft.program.signatures.law import Signature
from weft.program.signatures.normalize import NORMALIZE
from weft.program.signatures.pointwise import POINTWISE
from weft.program.signatures.products import PRODUCTS, contraction_sizes
from weft.program.signatures.shapes import SHAPES
from weft.program.signatures.spatial import SPATIAL, convolved_shape, per_dim, pooled_length

__all__ = ["SIGNATURES", "contraction_sizes", "convolved_shape", "per_dim", "pooled_length"]

SIGNATURES: Mapping[str, Signature] = MappingProxyType(
    {**SHAPES, **POINTWISE, **PRODUCTS, **SPATIAL, **NORMALIZE, **INDEX}
)
"""The signature of every operator but "input", by name."""
