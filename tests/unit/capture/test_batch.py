"""What a batch function has to return."""

from collections import UserDict

import pytest
import torch

from weft.capture.batch import require_batch
from weft.core.errors import InputError

REFUSED = {
    "None": None,
    "list": [torch.ones(2)],
    "the name 3": {3: torch.ones(2)},
    "x = list": {"x": [1.0]},
    "x = None": {"x": None},
    "x = a tensor of layout torch.sparse_coo": {"x": torch.eye(2).to_sparse()},
    "x = a nested tensor": {"x": torch.nested.nested_tensor([torch.ones(2)], layout=torch.jagged)},
}


@pytest.mark.parametrize("got", REFUSED)
def test_what_is_no_batch_is_refused_by_entry_and_step(got):
    with pytest.raises(InputError) as caught:
        require_batch(REFUSED[got], 7)
    assert caught.value.got.startswith(got)
    assert "step 7" in caught.value.got


def test_any_mapping_of_tensors_is_a_batch():
    batch = UserDict(x=torch.ones(2), y=torch.zeros((), dtype=torch.int64))
    assert require_batch(batch, 0) is batch
