"""Calls of one model of a family answered by another, of other latents and other noise."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.denoise_matrix.pipelines import PIPELINES
from weft.core.errors import InputError
from weft.diffusion.compat import Call
from weft.diffusion.handover import Handover, Noise, handover


def kept(shift):
    signal = torch.linspace(0.9999, 0.0, 1000, dtype=torch.float64)
    return signal / (shift + (1 - shift) * signal)


def noise(shift=1.0, predicts="v_prediction"):
    return Noise(kept=kept(shift), predicts=predicts)


CLEAN = torch.randn(1, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def answered(of, time, x, scale, clean):
    """What a denoiser that knows what is clean would answer."""
    a, s = of.at(time)
    own = (x - a * scale * clean) / s
    return own if of.predicts == "epsilon" else a * own - s * scale * clean


@given(
    time=st.integers(20, 990),
    scale=st.floats(0.5, 2.0),
    shifts=st.tuples(st.floats(0.5, 4.0), st.floats(0.5, 4.0)),
    predicts=st.tuples(*[st.sampled_from(["v_prediction", "epsilon"])] * 2),
)
def test_a_small_model_that_is_right_answers_as_a_large_one_that_is(time, scale, shifts, predicts):
    large, small = (noise(s, p) for s, p in zip(shifts, predicts, strict=True))
    a, s = large.at(time)
    x = a * CLEAN + s * torch.randn(CLEAN.shape, generator=torch.Generator().manual_seed(1))
    translate = Handover(large=large, small=small, scale=scale, rotates=False, dtype=torch.float64)
    call = Call(
        branch="cond",
        step=None,
        run=lambda: None,
        args=(),
        kwargs={
            "hidden_states": x,
            "timestep": torch.tensor([time]),
            "encoder_hidden_states": torch.zeros(1, 1, 1),
            "image_rotary_emb": (x, x),
        },
    )
    own, back = translate(call)
    assert own.kwargs["image_rotary_emb"] is None
    own_time = own.kwargs["timestep"].item()
    said = answered(small, own_time, own.kwargs["hidden_states"], scale, CLEAN)
    wanted = answered(large, time, x, 1.0, CLEAN)
    error = (back(said) - wanted).norm() / wanted.norm()
    assert error < 0.02  # times between whole ones are interpolated


def test_equal_models_are_left_as_they_are():
    own = noise(2.0)
    for time in (5.0, 400.0, 998.0):
        assert own.time_of(own.at(time)[0] ** 2) == pytest.approx(time, abs=1e-3)


def test_models_that_share_a_flow_need_no_translation():
    large, small = (PIPELINES["Wan 2.1"].build(4).pipe for _ in range(2))
    module, translate = handover(large.transformer, large, small)
    assert module is small.transformer and translate is None


def test_decoders_of_another_scale_need_one():
    large, small = (PIPELINES["CogVideoX"].build(4).pipe for _ in range(2))
    small.vae.register_to_config(scaling_factor=0.7)
    _, translate = handover(large.transformer, large, small)
    assert translate is not None
    assert translate.scale == pytest.approx(0.7 / large.vae.config.scaling_factor)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [("transformer", "in_channels", 7), ("vae", "latent_channels", 9)],
)
def test_what_differs_is_named(part, name, value):
    large, small = (PIPELINES["CogVideoX"].build(4).pipe for _ in range(2))
    getattr(small, part).register_to_config(**{name: value})
    with pytest.raises(InputError, match=name):
        handover(large.transformer, large, small)


def test_a_model_of_another_class_is_refused():
    large, small = (PIPELINES[n].build(4).pipe for n in ("Wan 2.1", "CogVideoX"))
    with pytest.raises(InputError, match="class"):
        handover(large.transformer, large, small)
    with pytest.raises(InputError, match="pipeline"):
        handover(large.transformer, large, SimpleNamespace())
