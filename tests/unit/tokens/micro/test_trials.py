import numpy as np
import pytest

from weft.core.errors import InputError
from weft.tokens.micro import Trials


def test_columns_have_one_length():
    with pytest.raises(InputError, match="columns of 2, 1"):
        Trials(inputs={"x": [1, 2]}, outcome=[1], task=["a", "b"])


def test_no_token_at_all_names_the_attempt():
    with pytest.raises(InputError, match=r"\[0.0\] of x in attempt 1"):
        Trials(inputs={"x": [1, 0]}, outcome=[1, 0], task=["a", "b"])


def test_a_task_that_is_drawn_twice_is_two_tasks():
    own = Trials(inputs={"x": [1, 2, 3]}, outcome=[1, 0, 1], task=["a", "a", "b"], arm=list("uvu"))
    drawn = own.resampled(np.random.default_rng(1))
    assert drawn.num_tasks == 2
    assert set(zip(drawn.inputs["x"], drawn.arm, strict=True)) <= {(1, "u"), (2, "v"), (3, "u")}


def test_a_cell_is_a_model_and_an_arm():
    own = Trials(
        inputs={"x": [1] * 4},
        outcome=[1] * 4,
        task=list("abcd"),
        arm=list("uuvv"),
        model=list("mnmn"),
    )
    assert own.num_cells == 4
    assert own.models == ("m", "n")
