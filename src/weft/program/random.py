"""Random numbers that do not depend on how a tensor is split.

The operator `uniform(seed, salt, size)` gives every element a number that is a hash of the
seed, the salt and the element's place in the whole tensor. A device that holds a part of the
tensor computes the same numbers for its part as one device does for all of it. This module is
the definition; every other implementation has to give the same bits.

All steps are operations on 64-bit signed integers that stay between 0 and 2**63 - 1, so that
neither signs nor overflow take part. With M = 2**32 - 1,

    mix(x):  x = x ^ (x >> 16);  x = (x * 0x21F0AAAD) & M
             x = x ^ (x >> 15);  x = (x * 0x735A2D97) & M
             x = x ^ (x >> 15)

which maps the integers below 2**32 one to one onto themselves. Two keys come from the seed (any
64-bit integer s) and the salt (a constant t, 0 <= t < 2**31):

    key_a = mix((s & M) ^ mix(2 t + 1))
    key_b = mix((((s & M) + mix(2 t + 2)) & M) ^ ((s >> 32) & M))

The element at index i of a part that starts at `offsets` of the whole has the position
p = sum over d of (offsets[d] + i[d]) * strides[d], with the strides of the whole tensor in
row-major order, and

    h = mix((p & M) ^ key_a)
    h = mix(((h + key_b) & M) ^ ((p >> 32) & M))
    u = (h >> 8) * 2**-24                                                        (f32, exact)

Source: xor-shift-multiply finalisers as searched for by github.com/skeeto/hash-prospector;
constants below 2**31, so that a product with 32 bits fits in 63. Their avalanche was measured
to be as good as that of the best known ones: tests/unit/program/test_random.py holds it there.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from weft.core.errors import InputError

__all__ = ["FIRST_MULTIPLIER", "MASK", "SECOND_MULTIPLIER", "mix", "row_major_strides", "uniform"]

MASK = 0xFFFFFFFF
FIRST_MULTIPLIER = 0x21F0AAAD
SECOND_MULTIPLIER = 0x735A2D97

Lane = TypeVar("Lane", int, NDArray[np.int64])


def mix(x: Lane) -> Lane:
    """The finaliser of the module's definition, for integers below 2**32 or arrays of them.

    Example:
        >>> mix(0), mix(1)
        (0, 2261973619)
    """
    x = x ^ (x >> 16)
    x = (x * FIRST_MULTIPLIER) & MASK
    x = x ^ (x >> 15)
    x = (x * SECOND_MULTIPLIER) & MASK
    return x ^ (x >> 15)


def row_major_strides(size: tuple[int, ...]) -> tuple[int, ...]:
    """Distance in position between neighbours along each dim.

    Example:
        >>> row_major_strides((2, 3, 4))
        (12, 4, 1)
    """
    strides: list[int] = []
    step = 1
    for n in reversed(size):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


def uniform(
    seed: int,
    salt: int,
    size: tuple[int, ...],
    offsets: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> NDArray[np.float32]:
    """Numbers in [0, 1) for a part of a tensor.

    Args:
        seed: the step's seed, a 64-bit integer.
        salt: constant that tells uses of one seed apart, at least 0 and below 2**31.
        size: shape of the part.
        offsets: index in the whole tensor of the part's first element; all 0 if left out.
        strides: row-major strides of the whole tensor; those of `size` if left out, which
            makes the part the whole.

    Returns:
        The numbers [size], multiples of 2**-24.

    Raises:
        InputError: the salt is out of range, or offsets or strides do not fit the size.

    Example:
        >>> whole = uniform(7, 0, (4, 6))
        >>> part = uniform(7, 0, (4, 3), offsets=(0, 3), strides=(6, 1))
        >>> bool((whole[:, 3:] == part).all())
        True
    """
    offsets = (0,) * len(size) if offsets is None else offsets
    strides = row_major_strides(size) if strides is None else strides
    if not len(size) == len(offsets) == len(strides) or not 0 <= salt < 2**31:
        raise InputError(
            need="one offset and one stride for each dim, and a salt from 0 to 2**31 - 1",
            got=f"size {size}, offsets {offsets}, strides {strides}, salt {salt}",
            hint="number the random operators of a program from 0",
        )
    low, high = seed & MASK, (seed >> 32) & MASK
    key_a = mix(low ^ mix(2 * salt + 1))
    key_b = mix(((low + mix(2 * salt + 2)) & MASK) ^ high)
    position = np.zeros(size, dtype=np.int64)
    for dim, (n, offset, stride) in enumerate(zip(size, offsets, strides, strict=True)):
        steps = (np.arange(n, dtype=np.int64) + offset) * stride
        position += steps.reshape(-1, *(1,) * (len(size) - dim - 1))
    h = mix((position & MASK) ^ key_a)
    h = mix(((h + key_b) & MASK) ^ ((position >> 32) & MASK))
    return np.asarray((h >> 8) * 2.0**-24, dtype=np.float32)
