import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.program.types import DType, TensorType

TYPES = st.builds(
    TensorType, st.sampled_from(DType), st.lists(st.integers(0, 9), max_size=4).map(tuple)
)


@given(of=TYPES)
def test_text_parses_back(of):
    assert TensorType.parse(str(of)) == of


@given(of=TYPES)
def test_bytes_are_elements_times_element_size(of):
    assert of.num_bytes == of.num_elements * of.dtype.num_bytes


@pytest.mark.parametrize("text", ["f32", "f33[2]", "f32[a]", "f32[-1]", "[2]", "f32[2", "f32[2]x"])
def test_other_text_is_refused(text):
    with pytest.raises(InputError):
        TensorType.parse(text)


def test_negative_sizes_are_refused():
    with pytest.raises(InputError, match="sizes of at least 0"):
        TensorType(DType.F32, (2, -1))
