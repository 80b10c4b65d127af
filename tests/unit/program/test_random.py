import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.program.random import MASK, mix, row_major_strides, uniform

SEEDS = st.integers(-(2**63), 2**63 - 1)


@settings(max_examples=50)
@given(data=st.data(), seed=SEEDS, salt=st.integers(0, 2**31 - 1))
def test_a_part_has_the_numbers_of_its_place_in_the_whole(data, seed, salt):
    size = tuple(data.draw(st.lists(st.integers(1, 5), max_size=4)))
    starts = tuple(data.draw(st.integers(0, n - 1)) for n in size)
    lengths = tuple(data.draw(st.integers(1, n - s)) for n, s in zip(size, starts, strict=True))
    part = uniform(seed, salt, lengths, offsets=starts, strides=row_major_strides(size))
    spans = tuple(slice(s, s + n) for s, n in zip(starts, lengths, strict=True))
    assert (uniform(seed, salt, size)[spans] == part).all()


def scalar_uniform(seed, salt, position):
    """The module's definition, word by word, on Python's unbounded integers."""
    low, high = seed % 2**32, (seed % 2**64) >> 32
    key_a = mix(low ^ mix(2 * salt + 1))
    key_b = mix(((low + mix(2 * salt + 2)) % 2**32) ^ high)
    h = mix((position % 2**32) ^ key_a)
    h = mix(((h + key_b) % 2**32) ^ (position >> 32))
    return (h >> 8) / 2**24


@settings(max_examples=100)
@given(seed=SEEDS, salt=st.integers(0, 2**31 - 1), position=st.integers(0, 2**40))
def test_numbers_follow_the_definition_beyond_32_bits(seed, salt, position):
    made = uniform(seed, salt, (1,), offsets=(position,), strides=(1,))
    assert made.dtype == np.float32
    assert made[0] == scalar_uniform(seed, salt, position)


@settings(max_examples=200)
@given(x=st.integers(0, MASK))
def test_no_step_of_mixing_leaves_63_bits(x):
    by_array = mix(np.asarray([x], dtype=np.int64))
    assert by_array[0] == mix(x)
    assert 0 <= mix(x) <= MASK


def test_mixing_avalanches():
    # Flipping any input bit flips each output bit half of the time: the mean squared deviation
    # over 2**16 samples is that of a fair coin, 1/4 over the number of samples, within 10 %.
    samples = np.random.default_rng(0).integers(0, 2**32, 2**16, dtype=np.int64)
    mixed = mix(samples)
    deviations = []
    for bit in range(32):
        changed = mix(samples ^ (1 << bit)) ^ mixed
        deviations += [float(((changed >> out) & 1).mean()) - 0.5 for out in range(32)]
    fair = 0.25 / len(samples)
    assert np.mean(np.square(deviations)) < 1.1 * fair


def test_mixing_is_one_to_one_on_a_block():
    assert len(np.unique(mix(np.arange(2**18, dtype=np.int64)))) == 2**18


@pytest.mark.parametrize(
    "other", [{"seed": 6}, {"seed": 5 + 2**32}, {"salt": 4}], ids=["seed", "high bits", "salt"]
)
def test_seeds_and_salts_give_unrelated_numbers(other):
    given_ = {"seed": 5, "salt": 3, "size": (200, 200)}
    a, b = uniform(**given_), uniform(**{**given_, **other})
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02


def test_neighbours_are_unrelated_and_numbers_fill_the_interval_evenly():
    u = uniform(1, 0, (2**16,))
    assert abs(np.corrcoef(u[1:], u[:-1])[0, 1]) < 0.02
    counts, _ = np.histogram(u, bins=16, range=(0, 1))
    assert abs(counts / 2**12 - 1).max() < 0.07
    assert u.min() >= 0.0
    assert u.max() < 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"salt": -1},
        {"salt": 2**31},
        {"offsets": (1,)},
        {"strides": (1, 1, 1)},
    ],
)
def test_what_does_not_fit_is_refused(wrong):
    with pytest.raises(InputError, match="one offset and one stride for each dim"):
        uniform(**{"seed": 0, "salt": 0, "size": (2, 2), **wrong})


def test_a_scalar_is_one_number():
    assert uniform(3, 1, ()).shape == ()
    assert uniform(3, 1, ()) == uniform(3, 1, (1,))[0]
