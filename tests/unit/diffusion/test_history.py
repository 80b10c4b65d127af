"""What is kept, and what is predicted from it."""

from __future__ import annotations

import pytest
import torch

from weft.diffusion.history import History, Keep
from weft.diffusion.plan import Predictor


def filled(*pairs, **keep):
    history = History(Keep(**keep))
    for position, value in pairs:
        history.push(position, (torch.full((2, 3), float(value)),))
    return history


def predicted(history, position, predictor):
    (found,) = history.predict(position, predictor)
    assert found.unique().numel() == 1
    return found[0, 0].item()


@pytest.mark.parametrize(
    ("predictor", "wanted"),
    [(Predictor.REUSE, 9.0), (Predictor.LINEAR, 14.0), (Predictor.TAYLOR, 16.0)],
)
def test_squares_are_predicted_by_degree(predictor, wanted):
    history = filled((0.0, 0), (1.0, 1), (2.0, 4), (3.0, 9))
    assert predicted(history, 4.0, predictor) == pytest.approx(wanted)


def test_early_on_a_lower_degree_is_used():
    assert predicted(filled((1.0, 5)), 9.0, Predictor.TAYLOR) == 5.0


def test_steps_of_unequal_length_are_no_trouble():
    assert predicted(filled((10.0, 1), (8.0, 2)), 2.0, Predictor.LINEAR) == pytest.approx(5.0)


def test_a_value_at_the_same_position_takes_its_place():
    history = filled((1.0, 5), (2.0, 6), (2.0, 7))
    assert len(history) == 2
    assert predicted(history, 3.0, Predictor.LINEAR) == pytest.approx(9.0)


def test_nothing_is_shared_with_what_was_given_or_is_handed_out():
    history, value = History(Keep()), torch.ones(2, 3)
    history.push(0.0, (value,))
    value.zero_()
    (first,) = history.predict(1.0, Predictor.REUSE)
    first.zero_()
    assert predicted(history, 1.0, Predictor.REUSE) == 1.0


def test_values_of_another_shape_start_afresh():
    history = filled((0.0, 1), (1.0, 2))
    history.push(2.0, (torch.ones(4, 3),))
    assert len(history) == 1


def test_what_is_kept_is_of_the_type_that_was_asked_for_and_comes_back_in_its_own():
    plain, small = (
        filled((0.0, 1), (1.0, 2)),
        filled((0.0, 1), (1.0, 2), dtype=torch.bfloat16),
    )
    assert plain.num_bytes == 2 * small.num_bytes == 2 * 6 * 4
    (found,) = small.predict(2.0, Predictor.LINEAR)
    assert found.dtype is torch.float32 and found[0, 0] == 3.0


def test_half_precision_is_extrapolated_in_single():
    history = History(Keep())
    for position, value in ((0.0, 256.0), (1.0, 257.0)):  # 257 + 1 is not in bfloat16's reach
        history.push(position, (torch.full((2,), value).to(torch.float16),))
    (found,) = history.predict(4.0, Predictor.LINEAR)
    assert found.dtype is torch.float16 and found[0] == 260.0
