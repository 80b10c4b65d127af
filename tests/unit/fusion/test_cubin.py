"""Kernels compiled for GPUs that are not there."""

import pytest

from tests.interpreted import run_interpreted
from tests.unit.fusion.regions import region
from weft.fusion.cubin import compiled_usage
from weft.fusion.device import A100, H100, steps_apart
from weft.fusion.gpu import emitted


def norm(add, x, w):
    mean = add("mul.Scalar", add("sum", x, (1,), True), 1 / 1000)
    centred = add("sub.Tensor", x, mean)
    square = add("sum", add("mul.Tensor", centred, centred), (1,), True)
    rstd = add("rsqrt.default", add("add.Scalar", add("mul.Scalar", square, 1e-3), 1e-5))
    return add("mul.Tensor", add("mul.Tensor", centred, rstd), w), add("sum", x, (0,))


@pytest.mark.parametrize("device", [A100, H100], ids=lambda d: d.name)
def test_kernels_spill_nothing_and_are_as_occupied_as_predicted(device, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    source, _, _ = emitted(region(norm, "f32[2048,1000]", "f32[1000]"), device)
    made = compiled_usage(source, device, tmp_path)
    assert len(made) == len(source.launches) > 1
    for launch, usage in zip(source.launches, made, strict=True):
        assert usage.spilled_bytes == 0 and 8 < usage.registers < 256
        assert usage.warps == launch.warps
        assert steps_apart(launch.usage, usage, device) <= 1


def test_lookups_are_checked_by_the_device(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    own = region(lambda add, x, i: add("gather.default", x, 0, i), "bf16[500,64]", "i64[9,64]")
    source, _, _ = emitted(own, H100)
    (launch,) = source.launches
    assert launch.checks
    (usage,) = compiled_usage(source, H100, tmp_path)
    assert usage.spilled_bytes == 0


def test_the_interpreter_compiles_nothing():
    said = run_interpreted(
        """
        from tests.unit.fusion.regions import region
        from weft.core.errors import RunError
        from weft.fusion.cubin import compiled_usage
        from weft.fusion.device import H100
        from weft.fusion.gpu import emitted
        made = region(lambda add, x: add("exp.default", x), "f32[5,3]")
        try:
            compiled_usage(emitted(made, H100)[0], H100, folder)
        except RunError as error:
            print(error.got)
        """
    )
    assert said == ["TRITON_INTERPRET=1, with which it interprets kernels"]
