"""Shorthand of the tests in this folder: types by shape, rules as text."""

from weft.parallel.rules import rules
from weft.program.graph import Value
from weft.program.infer import infer_types
from weft.program.types import DType, TensorType

A, B, C, D, E, G = map(Value, range(6))


def f32(*shape):
    return TensorType(DType.F32, shape)


def i64(*shape):
    return TensorType(DType.I64, shape)


def boolean(*shape):
    return TensorType(DType.BOOL, shape)


def rule_texts(op, args, *operands):
    """The rules of a call as a set of texts such as "P <- S1,S0"."""
    found = rules(op, args, operands, infer_types(op, args, operands))
    texts = {str(rule) for rule in found}
    assert len(texts) == len(found), "a rule stands twice"
    return texts
