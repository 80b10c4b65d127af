"""What providers report, beside a table that was worked out by hand."""

import pytest

from benchmarks.tokens.hand import OPENAI, TABLE
from weft.core.errors import InputError
from weft.tokens import Count, Usage, exactly
from weft.tokens.adapters import SHAPES, read_usage
from weft.tokens.adapters.replies import modalities
from weft.tokens.adapters.shape import leaf_class


@pytest.mark.parametrize(("shape", "payload", "usage"), TABLE, ids=[row[0] for row in TABLE])
def test_every_token_lies_in_the_leaf_that_the_provider_means(shape, payload, usage):
    assert read_usage(shape, modalities(payload)) == usage


def test_every_shape_is_in_the_table_and_says_where_it_is_from():
    assert {shape for shape, _, _ in TABLE} == set(SHAPES)
    assert all(shape.source for shape in SHAPES.values())


def test_inputs_and_outputs_are_different_leaves_that_are_classes():
    for shape in SHAPES.values():
        assert not shape.input_leaves & shape.output_leaves
        everything = shape.input_leaves | shape.output_leaves
        assert all(number.leaves <= everything for number in shape.numbers)
        assert all(leaf_class(leaf) for leaf in everything)


IMPOSSIBLE = [
    ("a part larger than its whole", {"prompt_tokens_details": {"cached_tokens": 20_001}}, "20001"),
    (
        "more reasoning than output",
        {"completion_tokens_details": {"reasoning_tokens": 3_001}},
        "3001",
    ),
    ("a total that is no sum", {"total_tokens": 23_001}, "23001"),
    ("additive cached tokens", {"total_tokens": 39_000}, "39000"),
    ("a negative count", {"prompt_tokens": -1}, "-1"),
    ("a part of a token", {"prompt_tokens": 1.5}, "1.5"),
    ("no number", {"completion_tokens": "many"}, "many"),
    ("a truth", {"completion_tokens": True}, "True"),
    ("more than JSON holds exactly", {"prompt_tokens": 2**53 + 1}, str(2**53 + 1)),
]


@pytest.mark.parametrize(
    ("what", "changed", "value"), IMPOSSIBLE, ids=[w for w, _, _ in IMPOSSIBLE]
)
def test_what_cannot_be_is_an_error_that_names_field_and_value(what, changed, value):
    with pytest.raises(InputError) as caught:
        read_usage("openai-chat", {**OPENAI, **changed})
    field = next(iter(changed))
    inner = changed[field]
    name = next(iter(inner)) if isinstance(inner, dict) else field
    assert name in f"{caught.value.need} {caught.value.got}"
    assert value in caught.value.got
    assert caught.value.hint


def test_what_is_missing_is_unknown_and_not_zero():
    used = read_usage("openai-chat", {"prompt_tokens": 100, "completion_tokens": 7})
    assert used == Usage.of(
        fresh=Count(0, 100),
        cache_read=Count(0, 100),
        text=Count(0, 7),
        reasoning=Count(0, 7),
        input=100,
        output=7,
    )
    nothing = read_usage("openai-chat", {})
    assert (nothing.input, nothing.output) == (Count(0, None), Count(0, None))


def test_a_null_is_missing_too():
    nulls = {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": None}
    assert read_usage("openai-chat", nulls).input == exactly(5)
    assert not read_usage("openai-chat", nulls).is_exact


def test_input_without_counts_of_its_cache_has_no_upper_end_where_they_lie_beside_it():
    used = read_usage("anthropic", {"input_tokens": 3, "output_tokens": 2})
    assert used.input == Count(3, None)
    assert used.output == exactly(2)


def test_a_total_says_what_a_missing_part_was():
    used = read_usage("openai-chat", {"prompt_tokens": 100, "total_tokens": 107})
    assert used.output == exactly(7)


def test_zeros_that_protocol_buffers_leave_out_are_zeros():
    used = read_usage("gemini", {"promptTokenCount": 9, "totalTokenCount": 9})
    assert used.input == exactly(9)
    assert used.output == exactly(0)


@pytest.mark.parametrize("seen", [0, 40, 120])
def test_a_stream_that_broke_off_is_between_what_was_seen_and_what_was_allowed(seen):
    payload = {
        "input_tokens": 3,
        "cache_read_input_tokens": 0,
        "cache_creation_input_tokens": 0,
        "output_tokens": seen,
    }
    used = read_usage("anthropic", payload, broke_off=True, max_tokens=100)
    assert used.input == exactly(3)
    assert used.output == Count(seen, max(seen, 100))
    assert read_usage("anthropic", payload, broke_off=True).output == Count(seen, None)


def test_a_stream_without_any_usage_is_limited_by_what_was_asked_for():
    used = read_usage("openai-chat", {}, broke_off=True, max_tokens=64)
    assert used.output == Count(0, 64)
    assert used.input == Count(0, None)
    assert read_usage("openai-chat", {"prompt_tokens": 5}, max_tokens=64).output == Count(0, 64)


def test_an_unknown_shape_is_told_what_there_is():
    with pytest.raises(InputError, match="openai-chat"):
        read_usage("openia", {})
