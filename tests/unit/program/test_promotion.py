import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import VerifyError
from weft.program.promotion import broadcast, promote, promote_to_float
from weft.program.types import DType, TensorType

SHAPES = st.lists(st.integers(1, 4), max_size=4).map(tuple)
TENSORS = st.builds(TensorType, st.sampled_from(DType), SHAPES)


@given(shape=SHAPES)
def test_a_shape_broadcasts_with_itself_and_with_ones_to_itself(shape):
    assert broadcast(shape, shape) == shape
    assert broadcast(shape, (1,) * len(shape)) == shape
    assert broadcast((), shape) == shape


@given(a=TENSORS, b=TENSORS)
def test_promotion_does_not_depend_on_order(a, b):
    assert promote(a, b) == promote(b, a)


@given(dtype=st.sampled_from(DType), number=st.sampled_from([True, 2, 0.5]))
def test_a_number_never_widens_within_a_category(dtype, number):
    made = promote(TensorType(dtype, (3,)), number)
    assert made is dtype or (made.is_float and not dtype.is_float) or dtype is DType.BOOL


@given(a=TENSORS)
def test_division_makes_floats(a):
    assert promote_to_float(a, 2).is_float


def test_the_two_half_types_meet_in_f32():
    halves = TensorType(DType.BF16, (2,)), TensorType(DType.F16, (2,))
    assert promote(*halves) is DType.F32


def test_sizes_that_differ_are_named():
    with pytest.raises(VerifyError, match=r"\(2, 3\) and \(2, 4\)"):
        broadcast((2, 3), (2, 4))
