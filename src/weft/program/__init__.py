"""The tensor program: one training step as plain frozen data, and what can be asked of it."""

from weft.program.annotation import Annotation, Wish
from weft.program.builder import Builder
from weft.program.evaluate import evaluate
from weft.program.fold import Folding, Layer, fold, verify_folding
from weft.program.graph import (
    Arg,
    Input,
    Node,
    Phase,
    Program,
    Role,
    Value,
    compact,
    map_values,
    require_input,
    values_in,
)
from weft.program.infer import infer_types
from weft.program.operators import OPERATORS, Kind, Operator, operator
from weft.program.random import uniform
from weft.program.text import from_text, to_text
from weft.program.types import DType, TensorType
from weft.program.verify import verify
from weft.program.work import Work, work

__all__ = [
    "OPERATORS",
    "Annotation",
    "Arg",
    "Builder",
    "DType",
    "Folding",
    "Input",
    "Kind",
    "Layer",
    "Node",
    "Operator",
    "Phase",
    "Program",
    "Role",
    "TensorType",
    "Value",
    "Wish",
    "Work",
    "compact",
    "evaluate",
    "fold",
    "from_text",
    "infer_types",
    "map_values",
    "operator",
    "require_input",
    "to_text",
    "uniform",
    "values_in",
    "verify",
    "verify_folding",
    "work",
]
