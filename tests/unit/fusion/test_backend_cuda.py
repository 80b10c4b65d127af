"""Graphs of CUDA tensors, as far as that goes without a GPU; and the same path on the CPU, where
Triton's interpreter takes the GPU's place."""

from __future__ import annotations

import pytest
import torch
from torch._inductor.decomposition import select_decomp_table
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from tests.interpreted import run_interpreted
from weft.fusion import backend
from weft.fusion.cubin import compiled_usage
from weft.fusion.device import H100
from weft.fusion.gpu import emitted
from weft.fusion.partition import candidates


def attend(x, w):
    scores = torch.softmax(x * 0.125, -1)
    return scores @ w, scores.to(torch.bfloat16)


def graph(f, *inputs):
    with FakeTensorMode():
        given = [torch.empty(shape, device=device) for shape, device in inputs]
        return make_fx(f, decomposition_table=select_decomp_table())(*given)


@pytest.fixture(autouse=True)
def apart(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    monkeypatch.setattr(backend, "device_of", lambda _: H100)


def test_a_region_on_a_gpu_is_one_call_that_makes_tensors_there():
    module = graph(attend, ((64, 128), "cuda"), ((128, 32), "cuda"))
    backend.Stitch(strict=True, measure=False)(module.graph)
    module.graph.lint()
    (call,) = [n for n in module.graph.nodes if n.target is torch.ops.weft.stitched.default]
    assert "_sm90" in call.args[1]
    kernel = backend._kernel(call.args[1])
    assert [made[0] for made in kernel.made] == [(64, 128)] * 2
    with FakeTensorMode():
        made = torch.ops.weft.stitched([torch.empty(64, 128, device="cuda")], call.args[1])
    assert {t.device.type for t in made} == {"cuda"}
    assert {t.dtype for t in made} == {torch.float32, torch.bfloat16}


def test_its_kernels_compile(tmp_path):
    module = graph(attend, ((64, 128), "cuda"), ((128, 32), "cuda"))
    (own,) = candidates(module)
    assert own.device == torch.device("cuda", 0)
    source, _, _ = emitted(own.region, H100)
    assert all(usage.spilled_bytes == 0 for usage in compiled_usage(source, H100, tmp_path))


def test_operators_between_devices_are_in_no_region():
    def mixed(x, scale):
        return torch.softmax(x * scale, -1)

    module = graph(mixed, ((64, 128), "cuda"), ((), "cpu"))
    assert any(n.target is torch.ops.aten.mul.Tensor for n in module.graph.nodes)
    (own,) = candidates(module)
    assert all(n.target is not torch.ops.aten.mul.Tensor for n in own.nodes)


def test_a_model_trains_on_kernels_of_triton():
    said = run_interpreted(
        """
        import os
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
        import torch.nn.functional as F
        from weft.fusion import backend
        from weft.fusion.device import H100
        from weft.fusion.gpu import TritonKernel, compile_for, key_of

        def compiled(stitch, candidate, plan):
            key = key_of(candidate.region, H100)
            backend._kernels[key] = compile_for(candidate.region, H100, backend.folder())
            return key

        backend.Stitch._key_of = compiled
        calls = []
        run = TritonKernel.__call__
        TritonKernel.__call__ = lambda own, inputs: calls.append(own) or run(own, inputs)

        def block(x, w, b, m):
            return F.gelu(F.layer_norm(x @ m, (48,), w, b)).softmax(-1)

        values = [torch.randn(s, requires_grad=True) for s in ((40, 16), (48,), (48,), (16, 48))]
        options = {"strict": True, "every_region": True}
        made = torch.compile(block, backend="weft", options=options)(*values)
        wanted = block(*values)
        slope = torch.randn_like(wanted)
        ours = torch.autograd.grad((made * slope).sum(), values)
        theirs = torch.autograd.grad((wanted * slope).sum(), values)
        torch.testing.assert_close(made, wanted)
        for one, other in zip(ours, theirs):
            torch.testing.assert_close(one, other, rtol=2e-5, atol=1e-5)
        print(len(calls))
        """
    )
    assert int(said[-1]) >= 2
