"""Squares between memory and vectors, and stores past the caches, on each kind of register."""

import numpy as np
import pytest
import torch

from tests.unit.fusion.emit.vectors import call

LANES = 16
NUMPY = {
    "float": np.float32,
    "double": np.float64,
    "int32_t": np.int32,
    "bf16": np.uint16,
    "bool": np.bool_,
}
NARROW = {"bf16": torch.bfloat16, "f16": torch.float16}
OFFSETS = [0, 1, 8, 24]
"""Elements from the start of a line: of whole lines, and of none."""


def aligned(count, kind, offset):
    """Zeros that begin so many elements behind the start of a line of memory."""
    size = np.dtype(kind).itemsize
    memory = np.zeros(count * size + 64 * size + 64, np.uint8)
    start = -memory.ctypes.data % 64 + offset * size
    return memory[start : start + count * size].view(kind)


def numbers(kind, *shape):
    count = int(np.prod(shape))
    return (
        np.arange(count) % 2 == 0 if kind is np.bool_ else np.arange(count, dtype=kind)
    ).reshape(shape)


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("kind", NUMPY)
def test_a_square_is_moved_from_rows_to_rows(library, kind, offset):
    x = numbers(NUMPY[kind], LANES, 20)
    got = aligned(LANES * 32, NUMPY[kind], offset)
    call(library, f"square_{kind}", x, 20, got, 32)
    rows = got.reshape(LANES, 32)
    np.testing.assert_array_equal(rows[:, :LANES], x[:, :LANES])
    assert not rows[:, LANES:].any()


@pytest.mark.parametrize(("lanes", "rows"), [(1, 1), (3, 16), (16, 5), (7, 9)])
@pytest.mark.parametrize("kind", NUMPY)
def test_of_a_part_of_a_square_nothing_else_is_written(library, kind, lanes, rows):
    x = numbers(NUMPY[kind], LANES, 20)
    got = np.zeros((LANES, 32), NUMPY[kind])
    call(library, f"part_of_square_{kind}", x, 20, got, 32, lanes, rows)
    np.testing.assert_array_equal(got[:lanes, :rows], x[:lanes, :rows])
    got[:lanes, :rows] = 0
    assert not got.any()


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("kind", NARROW)
def test_two_vectors_of_16_bits_are_a_line(library, kind, offset):
    x = np.linspace(-3, 5, 2 * LANES, dtype=np.float32)
    got = aligned(2 * LANES, np.uint16, offset)
    call(library, f"line_{kind}", x, got)
    wanted = torch.from_numpy(x).to(NARROW[kind]).view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("kind", NARROW)
def test_thirty_two_rows_become_sixteen_lines(library, kind, offset):
    x = np.linspace(-7, 9, 2 * LANES * LANES, dtype=np.float32).reshape(2 * LANES, LANES)
    got = aligned(LANES * 64, np.uint16, offset)
    call(library, f"two_squares_{kind}", x, got, 64)
    wanted = torch.from_numpy(x.T.copy()).to(NARROW[kind]).view(torch.int16).numpy()
    rows = got.reshape(LANES, 64)
    np.testing.assert_array_equal(rows[:, : 2 * LANES], wanted.view(np.uint16))
    assert not rows[:, 2 * LANES :].any()


@pytest.mark.parametrize("offset", OFFSETS)
def test_a_vector_is_stored_past_the_caches_wherever_it_lies(library, offset):
    x = np.linspace(-3, 5, LANES, dtype=np.float32)
    got = aligned(LANES, np.float32, offset)
    call(library, "row_float", x, got)
    np.testing.assert_array_equal(got, x)
