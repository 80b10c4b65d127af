"""Fields that have to be functions."""

from dataclasses import dataclass

import pytest

from weft.core.errors import InputError
from weft.core.functions import require_functions


class Meant:
    def __call__(self):
        return 1


@dataclass
class Owner:
    make: object


@pytest.mark.parametrize("value", [len, lambda: 1, int], ids=["built in", "lambda", "class"])
def test_what_can_be_called_is_a_function(value):
    require_functions(Owner(value), {"make": "lambda: 1"}, unlike=Meant)


@pytest.mark.parametrize(("value", "got"), [(3, "int"), (None, "NoneType"), (Meant(), "Meant")])
def test_what_cannot_and_what_was_meant_to_come_of_it_are_refused(value, got):
    with pytest.raises(InputError) as caught:
        require_functions(Owner(value), {"make": "lambda: 1"}, unlike=Meant)
    assert (caught.value.need, caught.value.got) == ("make: a function", got)
    assert caught.value.hint == "make=lambda: 1"
