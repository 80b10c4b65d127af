"""Weights as plain arrays."""

import numpy as np
import pytest
import torch
from torch import nn

from weft.core.errors import MismatchError
from weft.rl.weights import load_weights, pack_weights


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_come_back_bit_for_bit(kind):
    one, other = (nn.Linear(3, 2).to(kind) for _ in range(2))
    load_weights(other, pack_weights(one))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_packed_weights_are_copies():
    one = nn.Linear(3, 2)
    packed = pack_weights(one)
    before = packed["weight"].copy()
    with torch.no_grad():
        one.weight.zero_()
    assert np.array_equal(packed["weight"], before) and before.any()


def test_arrays_that_cannot_be_written_to_are_read():
    one = nn.Linear(3, 2)
    packed = pack_weights(one)
    for array in packed.values():
        array.flags.writeable = False  # as those in shared memory are
    load_weights(one, packed)


@pytest.mark.parametrize("other", [nn.Linear(3, 4), nn.Linear(3, 2, bias=False), nn.GRUCell(3, 2)])
def test_weights_of_another_model_are_refused(other):
    with pytest.raises(MismatchError):
        load_weights(other, pack_weights(nn.Linear(3, 2)))


def test_weights_of_another_type_are_refused():
    with pytest.raises(MismatchError, match="float32"):
        load_weights(nn.Linear(3, 2).bfloat16(), pack_weights(nn.Linear(3, 2)))
