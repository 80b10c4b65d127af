import pytest

from weft.core.errors import VerifyError
from weft.program.builder import Builder
from weft.program.graph import Phase, Role, Value
from weft.program.types import DType, TensorType
from weft.program.verify import verify

F32 = TensorType(DType.F32, (4, 8))


def test_what_it_builds_is_legal_and_says_what_was_said():
    b = Builder("step")
    w = b.input("w", Role.PARAMETER, F32)
    m = b.input("optimizer.m.w", Role.STATE, F32, parameter="w")
    loss = b.add("sum", b.add("mul.Tensor", w, w, scope="a", source="f.py:3"), (0, 1))
    new = b.add("add.Tensor", m, w, phase=Phase.UPDATE)
    program = b.build(loss, ((m, new),))
    verify(program)
    assert (program.nodes[2].scope, program.nodes[2].source) == ("a", "f.py:3")
    assert program.input_by_name["optimizer.m.w"].parameter == "w"
    assert program.updates == ((m.node, new),)


def test_an_operator_with_several_outputs_returns_them_all():
    b = Builder("norm")
    x = b.input("x", Role.BATCH, F32)
    out, mean, _ = b.add_all("native_layer_norm.default", x, (8,), None, None, 1e-5)
    assert (out, mean) == (Value(1, 0), Value(1, 1))
    assert b.type_of(mean).shape == (4, 1)
    with pytest.raises(VerifyError, match="use add_all"):
        b.add("native_layer_norm.default", x, (8,), None, None, 1e-5)


def test_errors_name_the_node_and_the_line():
    b = Builder("wrong")
    x = b.input("x", Role.BATCH, F32)
    with pytest.raises(VerifyError, match=r"node %1 at model\.py:7: view\(f32\[4,8\]"):
        b.add("view", x, (3,), source="model.py:7")


@pytest.mark.parametrize("value", [Value(1), Value(0, 1)])
def test_values_that_do_not_exist_are_refused(value):
    b = Builder("wrong")
    b.input("x", Role.BATCH, F32)
    with pytest.raises(VerifyError, match="a value that was added before"):
        b.add("neg.default", value)
