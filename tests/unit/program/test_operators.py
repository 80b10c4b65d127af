import pytest

from weft.core.errors import VerifyError
from weft.program.evaluate.run import _KERNELS  # pyright: ignore[reportPrivateUsage]
from weft.program.operators import OPERATORS, Kind, operator
from weft.program.signatures import SIGNATURES
from weft.program.work import _RULES  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("table", [SIGNATURES, _KERNELS], ids=["signatures", "evaluator"])
def test_every_operator_but_input_has_a_row(table):
    assert set(table) == set(OPERATORS) - {"input"}


def test_every_operator_has_a_work_rule():
    assert set(_RULES) == set(OPERATORS)


def test_only_pointwise_operators_are_linear_in_operands():
    linear = {row.kind for row in OPERATORS.values() if row.linear}
    assert linear == {Kind.POINTWISE}


def test_an_unknown_operator_is_named():
    with pytest.raises(VerifyError, match=r"'sinh\.default'"):
        operator("sinh.default")
