import math

import pytest

from weft.core.errors import InputError
from weft.tokens.call import Call, Status
from weft.tokens.usage import Usage


def a_call(**changed):
    return Call(**{"id": "1", "source": "proxy", "at": 1.0, "model": "m", **changed})


def test_a_call_needs_no_more_than_a_name_a_time_and_a_model():
    call = a_call()
    assert call.status is Status.DONE
    assert call.usage == Usage()
    assert (call.payer, call.agent, call.task, call.tier, call.passed) == ("", "", "", "", None)


@pytest.mark.parametrize(
    "changed",
    [{"id": ""}, {"at": math.nan}, {"at": math.inf}, {"seconds": -1.0}, {"seconds": math.nan}],
)
def test_a_call_without_a_name_or_a_time_is_refused(changed):
    with pytest.raises(InputError, match="clock"):
        a_call(**changed)


def test_labels_are_a_copy_that_nobody_changes():
    labels = {"team": "red"}
    call = a_call(labels=labels)
    labels["team"] = "blue"
    assert call.labels["team"] == "red"
    with pytest.raises(TypeError):
        call.labels["team"] = "green"
