"""Triton kernels: what they compute, in the interpreter, and the code itself."""

from __future__ import annotations

import ast
from dataclasses import replace

import pytest

from benchmarks.fusion.cases import GRAPHS
from benchmarks.fusion.point import ERROR_FLOOR, ERROR_RATIO
from benchmarks.fusion_triton.interpret import interpret
from tests.interpreted import run_interpreted
from tests.unit.fusion.regions import region
from weft.core.errors import VerifyError
from weft.fusion.cost import host_like
from weft.fusion.device import H100
from weft.fusion.emit.tiles import Tiling
from weft.fusion.emit.triton import emit_triton
from weft.fusion.gpu import emitted
from weft.fusion.lower import lower
from weft.fusion.moments import OF_PROGRAMS
from weft.fusion.stitch import ranked, scheduled

QUICK = ("groupnorm_silu", "softmax_outer", "batchnorm_relu", "cast_transpose_amax", "ln_bwd")


def assert_accurate(graphs, processors):
    found = interpret(graphs, processors=processors)
    assert [own.graph for own in found] == list(graphs)
    for own in found:
        assert own.error <= max(ERROR_RATIO * own.eager_error, ERROR_FLOOR), own


def test_graphs_of_the_suite_are_as_accurate_as_torch():
    assert_accurate(QUICK, processors=4)


@pytest.mark.slow
@pytest.mark.parametrize("processors", [132, 4])
def test_all_graphs_of_the_suite_are_as_accurate_as_torch(processors):
    assert_accurate(tuple(GRAPHS), processors)


def softmax(add, x):
    power = add("exp.default", add("sub.Tensor", x, add("amax", x, (1,), True)))
    return add("div.Tensor", power, add("sum", power, (1,), True))


def columns(add, x):
    return add("sum", x, (0,), False), add("mul.Scalar", x, 2.0)


def rows_and_columns(add, x):
    return add("sum", x, (0,), False), add("sub.Tensor", x, add("sum", x, (1,), True))


def source_of(build, *inputs, device=H100):
    return emitted(region(build, *inputs), device)[0]


def test_a_row_is_one_program_and_is_read_once():
    source = source_of(softmax, "f32[4096,1000]")
    (launch,) = source.launches
    assert launch.programs * 2 >= 4096 / 2 and launch.buffers == ("in0", "out0")
    assert source.text.count("tl.load(in0") == 1


def test_a_row_too_long_for_registers_is_walked_in_chunks():
    source = source_of(softmax, "f32[4096,20000]")
    assert source.text.count("for c") == 2
    assert all(launch.registers <= 128 for launch in source.launches)


def test_a_row_too_long_for_a_processors_cache_is_shared_out_over_programs():
    source = source_of(softmax, "f32[64,200000]")
    assert "for c" not in source.text
    assert all(launch.programs > 64 for launch in source.launches if "in0" in launch.buffers)


def test_sums_over_programs_are_made_in_parts_and_added_up_in_order():
    source = source_of(columns, "f32[4096,512]")
    first, last = source.launches
    (part,) = [buffer for buffer in source.buffers if buffer.name.startswith("part")]
    assert part.num_elements == first.programs * 512
    assert part.name in last.buffers and "atomic" not in source.text


def test_few_processors_have_few_programs_with_loops():
    many = source_of(rows_and_columns, "f32[4096,512]")
    few = source_of(rows_and_columns, "f32[4096,512]", device=replace(H100, processors=2))
    assert few.launches[0].programs <= 2 * 4 < many.launches[0].programs
    assert "for at in range" in few.text


def tiled(build, *inputs, **tiling):
    made = region(build, *inputs)
    points = lower(made, OF_PROGRAMS)
    plan = ranked(made, points, host_like(H100))[0]
    return emit_triton(scheduled(points, plan), "kernel", H100, Tiling(**tiling))


def test_all_that_is_read_is_on_its_way_before_a_row_is_summed():
    def gated(add, x, y):
        return add("mul.Tensor", softmax(add, x), add("sigmoid.default", y))

    usual = tiled(gated, "f32[4096,1000]", "f32[4096,1000]").text
    ahead = tiled(gated, "f32[4096,1000]", "f32[4096,1000]", stages=2).text
    assert usual.index("tl.load(in1") > usual.index("tl.sum(")
    assert ahead.index("tl.load(in1") < ahead.index("tl.sum(")


def test_loads_of_later_rounds_wait_in_shared_memory():
    one = tiled(rows_and_columns, "f32[65536,512]")
    three = tiled(rows_and_columns, "f32[65536,512]", stages=3)
    assert "num_stages" not in one.text
    assert ", num_stages=3):" in three.text
    assert three.launches[0].shared_bytes > one.launches[0].shared_bytes


def test_more_parts_than_a_processor_works_on_at_once_are_made_where_wanted():
    usual = tiled(rows_and_columns, "f32[65536,512]").launches[0].programs
    assert tiled(rows_and_columns, "f32[65536,512]", parts=64).launches[0].programs > 8 * usual


def normed(add, x):
    mean = add("mul.Scalar", add("sum", x, (0, 2), True), 1 / (32 * 16384))
    left = add("sub.Tensor", x, mean)
    square = add("sum", add("mul.Tensor", left, left), (0, 2), True)
    return add("mul.Tensor", left, add("rsqrt.default", square))


def test_few_channels_of_many_blocks_are_not_put_into_one_program():
    source = tiled(normed, "f32[32,64,16384]")
    sums = [own for own in source.launches if "in0" not in own.buffers]
    assert sums and all(own.programs >= 8 for own in sums)


def test_every_tiling_computes_the_same():
    said = run_interpreted(
        """
        from tests.unit.fusion.emit.test_triton import normed, rows_and_columns, region
        from weft.fusion.cost import host_like
        from weft.fusion.device import H100
        from weft.fusion.emit.tiles import TILINGS
        from weft.fusion.emit.triton import emit_triton
        from weft.fusion.gpu import TritonKernel, described
        from weft.fusion.lower import lower
        from weft.fusion.moments import OF_PROGRAMS
        from weft.fusion.stitch import ranked, scheduled
        from dataclasses import replace
        few = replace(H100, processors=2)  # whose programs do several blocks
        for build, shape in ((normed, (2, 3, 8200)), (rows_and_columns, (600, 70))):
            made = region(build, f"f32[{','.join(map(str, shape))}]")
            points = lower(made, OF_PROGRAMS)
            plan = ranked(made, points, host_like(H100))[0]
            x, texts, wanted = torch.randn(shape), set(), None
            for number, tiling in enumerate(TILINGS):
                source = emit_triton(scheduled(points, plan), f"kernel{number}", few, tiling)
                texts.add(source.text.replace(f"kernel{number}", ""))
                found = TritonKernel(described(made, plan, source, folder), folder)([x])
                wanted = wanted or found
                for one, other in zip(found, wanted):
                    torch.testing.assert_close(one, other)
            print(len(texts) > 3)
        """
    )
    assert said == ["True", "True"]


def test_masks_hold_vectors_only():
    # The interpreter refuses masks that join comparisons of scalars and of vectors.
    source = source_of(softmax, "f32[37,1000]")
    masks = [
        keyword.value
        for node in ast.walk(ast.parse(source.text))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "mask"
    ]
    assert masks
    for mask in masks:
        assert all(n.id[0] == "m" for n in ast.walk(mask) if isinstance(n, ast.Name))


def test_what_has_no_expression_is_an_error_that_names_it():
    with pytest.raises(VerifyError, match=r"pow.Tensor_Scalar of f64") as raised:
        source_of(lambda add, x: add("pow.Tensor_Scalar", x, 1.7), "f64[64]")
    assert "outside" in raised.value.hint


def test_what_reads_nothing_is_an_error():
    with pytest.raises(VerifyError, match="constants only"):
        source_of(lambda add: add("iota", 64, 0, 1, "i64"))


def test_an_index_outside_is_an_error():
    said = run_interpreted(
        """
        from tests.unit.fusion.regions import region
        from weft.fusion.device import H100
        from weft.fusion.gpu import compile_for
        made = region(lambda add, x, i: add("gather.default", x, 0, i), "f32[5,3]", "i64[2,3]")
        kernel = compile_for(made, H100, folder)
        # The interpreter leaves out what devices check, unless it is told to debug.
        from triton.runtime.interpreter import interpreter_builder
        object.__setattr__(interpreter_builder.options, "debug", True)
        x, index = torch.randn(5, 3), torch.tensor([[0, 4, 1], [2, 3, 0]])
        (found,) = kernel([x, index])
        print(torch.equal(found, x.gather(0, index)))
        try:
            kernel([x, index + 1])
        except IndexError as error:
            print(error)
        """
    )
    assert said == ["True", "an index is outside of the dim that it looks up"]


def test_a_kernel_takes_what_it_was_made_for():
    said = run_interpreted(
        """
        from tests.unit.fusion.regions import region
        from weft.core.errors import InputError
        from weft.fusion.device import H100
        from weft.fusion.gpu import compile_for
        made = region(lambda add, x: add("exp.default", x), "f32[5,3]")
        kernel = compile_for(made, H100, folder)
        try:
            kernel([torch.randn(3, 5)])
        except InputError as error:
            print(error.need, "|", error.got)
        again = compile_for(made, H100, folder)
        print(again.description == kernel.description)
        """
    )
    assert said == ["a tensor of shape (5, 3) with strides (3, 1) | (3, 5) with (5, 1)", "True"]


def test_functions_are_within_a_few_units_in_the_last_place():
    said = run_interpreted(
        """
        from tests.unit.fusion.regions import region
        from weft.fusion.device import H100
        from weft.fusion.gpu import compile_for
        strange = torch.tensor([0.0, 1e-30, -1e-30, torch.inf, -torch.inf, torch.nan])
        x = torch.cat([torch.linspace(-0.999, 1, 1999), 20 * torch.randn(2091), strange])
        functions = {
            "tanh": torch.tanh, "log1p": torch.log1p, "sigmoid": torch.sigmoid,
            "sqrt": torch.sqrt, "rsqrt": torch.rsqrt, "erf": torch.erf, "exp": torch.exp,
        }
        for name, function in functions.items():
            for dtype, text in ((torch.float32, "f32"), (torch.float64, "f64")):
                made = region(lambda add, x: add(f"{name}.default", x), f"{text}[{len(x)}]")
                given = x.to(dtype)
                (got,) = compile_for(made, H100, folder)([given])
                wanted = function(given.double())
                eps = torch.finfo(dtype).eps
                far = (got.double() - wanted).abs() > 4 * eps * wanted.abs().clamp(min=1e-37)
                same = (got.double() == wanted) | got.isnan() & wanted.isnan()
                over = got.isinf() & (wanted.abs() > torch.finfo(dtype).max)
                print(name, text, int((far & ~same & ~over).sum()))
        """
    )
    assert len(said) == 14 and all(line.endswith(" 0") for line in said), said
