"""Vectors of sixteen elements compute what float64 says, on each kind of register."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from benchmarks.vec.fit_polynomials import FITS, fitted
from tests.unit.fusion.emit.vectors import FLAGS, FUSION, TARGETS, call

LANES = 16
NAMES = {  # of element types in C++
    "float": np.float32,
    "double": np.float64,
    "int32_t": np.int32,
    "int64_t": np.int64,
    "uint8_t": np.uint8,
    "bool": np.bool_,
    "bf16": np.uint16,
    "f16": np.float16,
}
INF, NAN = np.inf, np.nan
TINY, MOST = 1e-45, 3.4028235e38
SPECIAL = [0.0, 1.0, 0.5, 2.0, 1e-40, TINY, 1.1754944e-38, MOST, 88.72284, 100.0, 103.9, INF, NAN]
SPECIAL = np.array(SPECIAL + [-x for x in SPECIAL])


def test_headers_are_compiled_here_as_kernels_are():
    nodes = ast.walk(ast.parse((FUSION / "compile.py").read_text()))
    written = {node.value for node in nodes if isinstance(node, ast.Constant)}
    assert {*FLAGS, *TARGETS["native"]} <= written


def mapped(library, name, *arrays, result=None):
    """A function of whole arrays, from aligned vectors of sixteen to the last element."""
    out = np.empty(arrays[0].size, result or arrays[0].dtype)
    call(library, name, *arrays, out, out.size)
    return out


def floats(step=20011):
    """Floats of every magnitude, and then some of those that occur most."""
    bits = np.arange(0, 2**32, step, dtype=np.uint64).astype(np.uint32).view(np.float32)
    bits[np.isnan(bits)] = NAN  # those that signal would
    some = np.concatenate(
        [np.linspace(-edge, edge, 40000) for edge in (0.3, 1.5, 8, 100)] + [SPECIAL]
    )
    return np.concatenate([bits, some.astype(np.float32)])


def ulps(got, exact):
    """Largest error in units of the last place; where the result is a number, and so `exact`."""
    kind = got.dtype.type
    limits = np.finfo(kind)
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = exact.astype(kind)
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(got[~finite], rounded[~finite])
    np.testing.assert_array_equal(np.signbit(got[finite]), np.signbit(rounded[finite]))
    got, exact = got[finite].astype(np.longdouble), exact[finite].astype(np.longdouble)
    exponent = np.maximum(np.frexp(exact)[1], limits.minexp + 1)
    return float(
        np.max(np.abs(got - exact) / np.ldexp(np.longdouble(1), exponent - limits.nmant - 1))
    )


def in_float64(function, x):
    return function(torch.from_numpy(x.astype(np.float64))).numpy()


FUNCTIONS = {
    "exponential": (torch.exp, 1.1),
    "logarithm": (torch.log, 1.0),
    "logarithm1p": (torch.log1p, 1.0),
    "tangent": (torch.tanh, 2.0),
    "logistic": (torch.sigmoid, 1.9),
    "error_function": (torch.erf, 1.9),
    "sine": (torch.sin, 1.6),
    "cosine": (torch.cos, 1.6),
    "root": (torch.sqrt, 0.5),
    "inverse_root": (torch.rsqrt, 1.5),
    "floored": (torch.floor, 0.0),
    "absolute": (torch.abs, 0.0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_floats_are_off_by_few_units_in_the_last_place(library, name):
    function, most = FUNCTIONS[name]
    x = floats()
    exact = in_float64(function, x)
    assert ulps(mapped(library, f"{name}_float", x), exact) <= most
    # Plain numbers go through the C library.
    assert ulps(mapped(library, f"plain_{name}_float", x), exact) <= 2.5


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_doubles_are_those_of_the_c_library_or_as_near(library, name):
    function, _ = FUNCTIONS[name]
    x = np.concatenate([np.linspace(-740, 740, 20011), np.linspace(-1, 1, 20011), SPECIAL])
    exact = in_float64(function, x)
    if name == "logistic":  # torch's is 0 where e^-x is too large for a double
        exact = np.where(x < 0, np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x))), exact)
    assert ulps(mapped(library, f"{name}_double", x), exact) <= 3.0
    assert ulps(mapped(library, f"plain_{name}_double", x), exact) <= 3.0


def test_exponentials_of_doubles_round_where_they_become_subnormal_or_too_large(library):
    x = np.array([-745.2, -745.1, -744.0, -720.5, -708.4, 709.78, 709.79, 5e-324, -5e-324])
    got = mapped(library, "exponential_double", x)
    assert ulps(got, np.exp(x.astype(np.longdouble))) <= 1.0


def test_sigmoids_have_tails(library):
    x = np.array([-87, -88, -89, -95, -100, -103, -104, 17, 100], np.float32)
    got = mapped(library, "logistic_float", x)
    assert ulps(got, in_float64(torch.sigmoid, x)) <= 1.0
    assert got[4] == np.float32(3.783506e-44)


@pytest.mark.parametrize("edge", [1e4, 1e6, 1e30])
def test_sines_far_from_zero_are_those_of_numbers_near_it(library, edge):
    x = np.random.default_rng(0).uniform(-edge, edge, 60000).astype(np.float32)
    x[::16] = np.float32(0.1)  # beside lanes that are far away
    for name, function in (("sine", torch.sin), ("cosine", torch.cos)):
        assert ulps(mapped(library, f"{name}_float", x), in_float64(function, x)) <= 1.6


def test_sines_next_to_multiples_of_right_angles_keep_their_digits(library):
    x = (np.arange(1, 6366) * (np.pi / 2)).astype(np.float32)
    for name, function in (("sine", torch.sin), ("cosine", torch.cos)):
        assert ulps(mapped(library, f"{name}_float", x), in_float64(function, x)) <= 1.6


def test_powers_are_off_by_less_than_one_unit_in_the_last_place(library):
    random = np.random.default_rng(0)
    x = np.exp(random.uniform(-20, 20, 80000)).astype(np.float32)
    y = (random.uniform(-90, 90, x.size) / np.log(x)).astype(np.float32)
    x[::3] *= -1
    y[::3] = np.round(y[::3])
    with np.errstate(over="ignore", invalid="ignore"):
        exact = np.power(x.astype(np.float64), y.astype(np.float64))
    assert ulps(mapped(library, "power_float", x, y), exact) <= 1.0


@pytest.mark.parametrize("kind", ["float", "double"])
def test_powers_of_special_numbers_are_those_of_c(library, kind):
    values = np.concatenate([SPECIAL, [3.0, -3.0, 2.5, 1e9, -1e9, 16777215.0, 0.9999999, -7.0]])
    x, y = (a.ravel().astype(NAMES[kind]) for a in np.meshgrid(values, values))
    x, y = (np.append(a, np.ones(-a.size % LANES, a.dtype)) for a in (x, y))
    with np.errstate(all="ignore"):
        exact = np.power(x.astype(np.float64), y.astype(np.float64))
    assert ulps(mapped(library, f"power_{kind}", x, y), exact) <= 1.0
    assert ulps(mapped(library, f"plain_power_{kind}", x, y), exact) <= 1.0


@pytest.mark.parametrize("kind", ["int32_t", "int64_t"])
def test_powers_of_whole_numbers_are_their_last_bits_and_never_fractions(library, kind):
    x, y = (a.ravel() for a in np.meshgrid(np.arange(-8, 8), np.arange(-8, 72)))
    x, y = x.astype(NAMES[kind]), y.astype(NAMES[kind])
    exact = [
        int(a) ** int(b) if b >= 0 else int(abs(a) == 1) * int(a) ** int(-b)
        for a, b in zip(x, y, strict=True)
    ]
    wanted = np.array([value % 2**64 for value in exact], np.uint64).astype(NAMES[kind])
    for prefix in ("", "plain_"):
        np.testing.assert_array_equal(mapped(library, f"{prefix}power_{kind}", x, y), wanted)


def test_coefficients_are_those_that_the_script_fits():
    text = (FUSION / "emit" / "functions.h").read_text()
    written = {float(word) for word in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", text)}
    wanted = {
        float(f"{c:.{17 if fit.double else 9}g}") for fit in FITS.values() for c in fitted(fit)[0]
    }
    assert wanted <= written


@pytest.mark.parametrize("kind", ["float", "double"])
def test_the_gradient_of_gelu_by_tanh_is_that_of_autograd(library, kind):
    x = torch.linspace(-6, 6, 4096, dtype=torch.float64, requires_grad=True)
    grad = torch.linspace(1, 2, 4096, dtype=torch.float64)
    torch.nn.functional.gelu(x, approximate="tanh").backward(grad)
    arrays = [a.detach().numpy().astype(NAMES[kind]) for a in (grad, x)]
    for name in ("gelu_tanh_backward", "plain_gelu_tanh_backward"):
        got = mapped(library, f"{name}_{kind}", *arrays)
        np.testing.assert_allclose(got, x.grad.numpy(), rtol=2e-5, atol=2e-6)


# --- numbers -------------------------------------------------------------------------------------


COMPARISONS = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}


def pairs(kind):
    """All pairs of values that matter, as two arrays."""
    dtype = NAMES[kind]
    if np.dtype(dtype).kind == "f":
        values = SPECIAL.astype(dtype)
    else:
        limits = np.iinfo(dtype)
        values = np.array([0, 1, -1, 7, limits.min, limits.max, limits.max - 1, 2**30], dtype)
    a, b = (np.ascontiguousarray(x.ravel()) for x in np.meshgrid(values, values))
    return tuple(np.append(x, x[: -x.size % LANES]) for x in (a, b))


@pytest.mark.parametrize("kind", ["float", "double", "int32_t", "int64_t"])
def test_extremes_and_comparisons_are_those_of_numpy_where_nan_wins(library, kind):
    a, b = pairs(kind)
    for prefix in ("", "plain_"):
        for name in ("maximum", "minimum"):
            got = mapped(library, f"{prefix}{name}_{kind}", a, b)
            np.testing.assert_array_equal(got, getattr(np, name)(a, b))
        for name, compare in COMPARISONS.items():
            got = mapped(library, f"{prefix}{name}_{kind}", a, b, result=np.bool_)
            np.testing.assert_array_equal(got.view(np.uint8), compare(a, b).view(np.uint8))


@pytest.mark.parametrize("kind", ["int32_t", "int64_t"])
def test_absolute_values_of_integers_are_those_of_numpy(library, kind):
    x = pairs(kind)[0]
    x = x[x != np.iinfo(x.dtype).min]
    np.testing.assert_array_equal(mapped(library, f"absolute_{kind}", x), np.abs(x))


@pytest.mark.parametrize("kind", ["float", "double", "int32_t", "int64_t"])
def test_lanes_are_summed_up_by_halves_and_their_largest_is_found_wherever_it_is(library, kind):
    random = np.random.default_rng(0)
    for lane in range(LANES):
        x = random.integers(-100, 100, LANES).astype(NAMES[kind]) / NAMES[kind](1)
        x = (x * 1.37).astype(NAMES[kind])
        x[lane] = 1000
        half = x
        while half.size > 1:
            half = half[: half.size // 2] + half[half.size // 2 :]
        got = np.empty(1, x.dtype)
        call(library, f"lanes_sum_{kind}", x, got)
        assert got[0] == half[0]
        call(library, f"lanes_maximum_{kind}", x, got)
        assert got[0] == 1000
        call(library, f"lanes_maximum_{kind}", -np.abs(x), got)
        assert got[0] == np.max(-np.abs(x))


@pytest.mark.parametrize("kind", ["float", "double"])
def test_one_lane_that_is_nan_makes_the_largest_nan(library, kind):
    for lane in range(LANES):
        x, got = np.ones(LANES, NAMES[kind]), np.zeros(1, NAMES[kind])
        x[lane] = NAN
        call(library, f"lanes_maximum_{kind}", x, got)
        assert np.isnan(got[0])


@pytest.mark.parametrize("kind", ["float", "double", "int32_t", "int64_t"])
def test_a_transposed_square_has_rows_for_columns(library, kind):
    x = np.arange(LANES * LANES, dtype=NAMES[kind]).reshape(LANES, LANES)
    got = np.zeros_like(x)
    call(library, f"transpose_{kind}", x, got)
    np.testing.assert_array_equal(got, x.T)


def test_masks_follow_the_rules_of_logic(library):
    bits = np.arange(256)
    a, b = bits % 2 == 1, bits // 2 % 2 == 1
    wanted_of = {"both": a & b, "either": a | b, "maximum": a | b, "minimum": a & b}
    wanted_of |= {name: compare(a, b) for name, compare in COMPARISONS.items()}
    for name, wanted in wanted_of.items():
        for prefix in ("", "plain_"):
            got = mapped(library, f"{prefix}{name}_bool", a, b)
            np.testing.assert_array_equal(got.view(np.uint8), wanted.view(np.uint8))
    got = mapped(library, "inverse_bool", a)
    np.testing.assert_array_equal(got.view(np.uint8), (~a).view(np.uint8))


def test_a_lane_that_is_true_is_found_wherever_it_is(library):
    for lane in range(LANES + 1):
        x, got = np.arange(LANES) == lane, np.array([lane == LANES])
        call(library, "any_lane_bool", x, got)
        assert got[0] == (lane < LANES)


def test_bytes_that_are_not_zero_are_true(library):
    x = np.array([0, 1, 2, 127, 128, 255, 0, 0, 1, 3, 0, 0, 0, 64, 0, 5], np.uint8)
    got = np.empty(LANES, np.float32)
    call(library, "float_of_bool", x, got, LANES)
    np.testing.assert_array_equal(got, x != 0)


def test_lanes_count_from_a_number(library):
    got = np.empty(LANES, np.int64)
    call(library, "counted", 2**40, got)
    np.testing.assert_array_equal(got, 2**40 + 3 * np.arange(LANES))


# --- conversions ---------------------------------------------------------------------------------


def elements(kind, size=LANES):
    """Some numbers, none of them zero, as they lie in memory."""
    numbers = np.random.default_rng(1).integers(1, 100, size)
    if kind == "bf16":
        return (numbers.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return numbers.astype(NAMES[kind])


def value_of(kind, array):
    """What elements are worth."""
    return (array.astype(np.uint32) << 16).view(np.float32) if kind == "bf16" else array


@pytest.mark.parametrize("kind", NAMES)
def test_numbers_keep_their_value_in_another_type(library, kind):
    x = elements(kind, 64)
    if kind in ("float", "double", "int32_t", "int64_t"):
        x[::2] *= -1
    for other in NAMES:
        if other == "uint8_t":
            continue
        got = np.empty(x.size, NAMES[other])
        call(library, f"{other}_of_{kind}", x, got, x.size)
        np.testing.assert_array_equal(
            value_of(other, got),
            value_of(kind, x).astype(np.float32 if other == "bf16" else NAMES[other]),
        )


def test_fractions_are_cut_and_large_numbers_are_kept(library):
    x = np.array([1.9, -1.9, 0.5, -0.5, 2.0**31 - 128, -(2.0**31), 1e9, -7.99] * 2)
    for kind in ("float", "double"):
        for other in ("int32_t", "int64_t"):
            got = np.empty(LANES, NAMES[other])
            call(library, f"{other}_of_{kind}", x.astype(NAMES[kind]), got, LANES)
            np.testing.assert_array_equal(got, x.astype(NAMES[kind]).astype(NAMES[other]))
    large = np.array([2**62, -(2**62), 2**53 + 1, 2**31, -(2**31), 2**24 + 1, -3, 5] * 2)
    for other in ("float", "double", "int32_t"):
        got = np.empty(LANES, NAMES[other])
        call(library, f"{other}_of_int64_t", large, got, LANES)
        np.testing.assert_array_equal(got, large.astype(NAMES[other]))
    got = np.empty(LANES, np.uint8)
    call(library, "uint8_t_of_int32_t", np.arange(250, 266, dtype=np.int32), got, LANES)
    np.testing.assert_array_equal(got, np.arange(250, 266).astype(np.uint8))


HALVES = {"bf16": torch.bfloat16, "f16": torch.float16}


@pytest.mark.parametrize("kind", HALVES)
def test_floats_are_rounded_to_sixteen_bits_as_torch_rounds_them(library, kind):
    x = floats(step=40009)
    ties = np.arange(2**16, dtype=np.uint32) << 16  # and what lies next to ties of both types
    near = [ties | low for low in (0, 0x7FFF, 0x8000, 0x8001, 0x1000, 0x0FFF, 0x3000)]
    x = np.concatenate([x, np.concatenate(near).view(np.float32)])
    x = x[: x.size // LANES * LANES]
    wanted = torch.from_numpy(x).to(HALVES[kind])
    number = ~np.isnan(x)
    for prefix in ("", "plain_"):
        got = np.empty(x.size, np.uint16)
        call(library, f"{prefix}{kind}_of_float", x, got, x.size)
        np.testing.assert_array_equal(got[number], wanted.view(torch.uint16).numpy()[number])
        assert torch.isnan(torch.from_numpy(got[~number]).view(HALVES[kind])).all()
        same = mapped(library, f"{prefix}rounded_{kind}", x)
        np.testing.assert_array_equal(same, wanted.float().numpy())


@pytest.mark.parametrize("kind", HALVES)
def test_all_numbers_of_sixteen_bits_become_the_floats_that_they_are(library, kind):
    x = np.arange(2**16, dtype=np.uint32).astype(np.uint16)
    wanted = torch.from_numpy(x).view(HALVES[kind]).float().numpy()
    for prefix in ("", "plain_"):
        got = np.empty(x.size, np.float32)
        call(library, f"{prefix}float_of_{kind}", x, got, x.size)
        np.testing.assert_array_equal(got, wanted)
        np.testing.assert_array_equal(np.signbit(got), np.signbit(wanted))


# --- memory --------------------------------------------------------------------------------------

# Elements end where a page begins that may not be touched; what is beside them has to stay.
GUARDED = """
import ctypes, mmap, sys
library, page, libc = ctypes.CDLL(sys.argv[1]), mmap.PAGESIZE, ctypes.CDLL(None)
def guarded():
    memory = mmap.mmap(-1, 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert libc.mprotect(ctypes.c_void_p(start + page), page, 0) == 0
    return memory, start
given, at = guarded()
kept, to = guarded()
for word in sys.argv[2:]:
    kind, size = word.split(":")
    for n in range(1, 17):
        count = n * int(size)
        given[page - count : page] = bytes(k % 2 for k in range(count))
        kept[:page] = b"\\xaa" * page
        print(kind, n, flush=True)
        places = [ctypes.c_void_p(start + page - count) for start in (at, to)]
        getattr(library, "first_" + kind)(*places, ctypes.c_int(n))
        assert kept[:page] == b"\\xaa" * (page - count) + given[page - count : page]
"""


def test_some_elements_are_read_and_written_without_touching_what_lies_behind(library):
    kinds = [f"{kind}:{np.dtype(dtype).itemsize}" for kind, dtype in NAMES.items()]
    command = [sys.executable, "-c", GUARDED, library._name, *kinds]
    done = subprocess.run(command, capture_output=True, text=True)
    last = done.stdout.splitlines()[-1] if done.stdout else "nothing"
    assert done.returncode == 0, f"at {last}: {done.stderr}"
    assert last == "f16 16"


@pytest.mark.parametrize("kind", NAMES)
def test_some_elements_are_written_and_none_beside_them(library, kind):
    x = elements(kind)
    for n in range(1, LANES + 1):
        got = np.zeros_like(x)
        call(library, f"first_{kind}", x, got, n)
        np.testing.assert_array_equal(got, np.where(np.arange(LANES) < n, x, np.zeros_like(x)))


@pytest.mark.parametrize("kind", NAMES)
def test_lanes_behind_the_last_element_are_zero(library, kind):
    x = elements(kind)
    for n in range(1, LANES + 1):
        got = elements(kind)
        call(library, f"filled_{kind}", x, got, n)
        np.testing.assert_array_equal(got, np.where(np.arange(LANES) < n, x, np.zeros_like(x)))


@pytest.mark.parametrize("kind", NAMES)
def test_a_mask_chooses_between_elements_of_every_type(library, kind):
    a, b = elements(kind), np.zeros_like(elements(kind))
    for mask in (np.arange(LANES) % 3 == 0, np.arange(LANES) > 8, np.arange(LANES) < 5):
        got = elements(kind)
        call(library, f"chosen_{kind}", mask, a, b, got)
        np.testing.assert_array_equal(got, np.where(mask, a, b))


@pytest.mark.parametrize("kind", NAMES)
def test_elements_a_stride_apart_are_moved_and_none_between_them(library, kind):
    x = elements(kind, 5 * LANES)
    for n in (1, 7, LANES):
        got = np.zeros(3 * LANES, NAMES[kind])
        call(library, f"apart_{kind}", x, got, 5, 3, n)
        wanted = np.zeros_like(got)
        wanted[: 3 * n : 3] = x[: 5 * n : 5]
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("kind", NAMES)
def test_lookups_take_rows_and_tell_of_those_that_are_not_there(library, kind):
    rows, width = 9, LANES
    table = elements(kind, rows * width).reshape(rows, width)
    at = np.random.default_rng(2).integers(0, rows, LANES)
    for n in (3, LANES):
        here = np.arange(n)
        got = np.zeros(LANES, table.dtype)
        assert call(library, f"looked_up_{kind}", table, at, got, 1, width, rows, n) == 0
        np.testing.assert_array_equal(got[:n], table[at[:n], here])
        assert call(library, f"looked_up_{kind}", table, at, got, 0, width, rows, n) == 0
        np.testing.assert_array_equal(got[:n], table[at[:n], 0])
        assert call(library, f"looked_up_in_a_row_{kind}", table, 4, got, width, rows, n) == 0
        np.testing.assert_array_equal(got[:n], table[4, :n])
        assert not got[n:].any()
    for outside in (-1, rows):
        wrong = at.copy()
        wrong[2] = outside
        assert call(library, f"looked_up_{kind}", table, wrong, got, 1, width, rows, LANES) == 1
        assert call(library, f"looked_up_{kind}", table, wrong, got, 1, width, rows, 2) == 0
        name = f"looked_up_in_a_row_{kind}"
        assert call(library, name, table, outside, got, width, rows, LANES) == 1


def test_buffers_of_threads_are_joined(library):
    x = np.random.default_rng(0).integers(-50, 50, (3, 32)).astype(np.float32)
    for n in (5, LANES):
        got = np.zeros(2 * LANES + 2, np.float32)
        call(library, "over_threads", x, got, x.strides[0], 3, n)
        np.testing.assert_array_equal(got[:n], x[:, 2 : 2 + n].sum(0))
        np.testing.assert_array_equal(got[LANES : LANES + n], x[:, 2 : 2 + n].max(0))
        np.testing.assert_array_equal(got[2 * LANES :], [x[:, 2].sum(), x[:, 2].max()])
