import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.core.units import format_bytes, format_count, format_seconds, parse_bytes

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
COUNTS = {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


@given(st.integers(0, 2**70))
def test_a_plain_number_of_bytes_is_read_exactly(number):
    assert parse_bytes(number) == number
    assert parse_bytes(str(number)) == number


@given(st.integers(0, 10**6), st.sampled_from("kmgtp"), st.booleans())
def test_an_i_means_1024_and_its_absence_1000(number, prefix, binary):
    base = 1024 if binary else 1000
    text = f"{number} {prefix.upper()}{'i' if binary else ''}B"
    assert parse_bytes(text) == number * base ** (1 + "kmgtp".index(prefix))


@given(st.integers(0, 2**59))
def test_reading_what_was_printed_is_off_by_no_more_than_the_rounding(number):
    text = format_bytes(number)
    unit_bytes = parse_bytes("1" + text.split()[1])
    assert abs(parse_bytes(text) - number) <= 0.05 * unit_bytes + 1


@pytest.mark.parametrize(
    "text",
    ["", "GiB", "-1", "1.2.3GB", "eighty", "5 parsecs", "nan", "inf", "1e400", "1e999999999"],
)
def test_what_is_not_a_size_is_refused_and_named(text):
    with pytest.raises(InputError) as caught:
        parse_bytes(text)
    assert caught.value.got == repr(text)


@given(st.floats(1, 2**59))
def test_a_printed_size_is_at_least_1_and_below_1024_of_its_unit(number):
    assert 1 <= float(format_bytes(number).split()[0]) < 1024


@given(st.floats(1e-6, 999))
def test_a_printed_duration_is_at_least_1_and_below_1000_of_its_unit(seconds):
    number, unit = format_seconds(seconds).split()
    assert 1 <= float(number) < 1000
    assert "e" not in number
    assert float(number) * SECONDS[unit] == pytest.approx(seconds, rel=0.005)


@given(st.floats(1, 9e14))
def test_a_printed_count_is_right_to_three_digits(count):
    number, _, unit = format_count(count).partition(" ")
    assert float(number) * COUNTS[unit] == pytest.approx(count, rel=0.005)


def test_signs_and_zero_survive():
    assert (format_seconds(0), format_seconds(-0.5), format_bytes(-2048), format_count(-1500)) == (
        "0 s",
        "-500 ms",
        "-2.0 KiB",
        "-1.5 k",
    )


def test_no_duration_is_printed_as_a_power_of_ten():
    assert format_seconds(12345.6) == "12346 s"
    assert format_seconds(0.99999) == "1 s"
