import pytest

from weft.core.errors import InputError
from weft.tokens.adapters.shape import IMAGE_CACHE_READ, Number, Shape, leaf_class
from weft.tokens.classes import TokenClass


def a_shape(**changed):
    numbers = (
        Number(paths=(("usage", "in"), ("old",)), leaves=frozenset({"fresh", "cache_read"})),
        Number(paths=(("out",),), leaves=frozenset({"text"}), absent_is_none=True),
    )
    return Shape(name="toy", source="here", numbers=numbers, input=("usage.in",), output=("out",))


@pytest.mark.parametrize(
    ("payload", "values"),
    [
        ({"usage": {"in": 3}, "out": 4}, [3, 4]),
        ({"old": 5}, [5, 0]),
        ({"usage": {"in": 3}, "old": 5}, [3, 0]),
        ({"usage": {"in": None}, "old": 5}, [5, 0]),
        ({"usage": 7}, [None, 0]),
        ({"usage": {"in": "12"}, "out": 2.0}, [12, 2]),
    ],
)
def test_numbers_are_read_by_their_newest_name_that_is_there(payload, values):
    assert a_shape().read(payload) == values


@pytest.mark.parametrize("value", [-1, 1.5, True, "x", [], {}, float("nan")])
def test_what_is_no_count_names_its_field(value):
    with pytest.raises(InputError, match=r"usage\.in"):
        a_shape().read({"usage": {"in": value}})


def test_leaves_of_a_side_are_those_of_its_numbers():
    assert a_shape().input_leaves == {"fresh", "cache_read"}
    assert a_shape().output_leaves == {"text"}


def test_a_picture_from_a_cache_is_counted_with_text_from_it():
    assert leaf_class(IMAGE_CACHE_READ) is TokenClass.CACHE_READ
    assert leaf_class("audio_cache_read") is TokenClass.AUDIO_CACHE_READ
