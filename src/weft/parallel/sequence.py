"""Context parallelism: what is cut along the sequence, and what is whole.

Everything that follows the tokens is cut where they are. Queries attend to keys and values of
the whole sequence, which are gathered before they are repeated for the groups of queries that
share them.

Source: Llama 3 (arXiv 2407.21783, section 3.3.2), all-gather of keys and values.
"""

from __future__ import annotations

from weft.core.errors import InputError
from weft.parallel.placement import REPLICATED, Placement
from weft.program.graph import Phase, Program, Role, Value
from weft.program.operators import Kind, operator

__all__ = ["has_sequence", "sequence_pins"]

_ROW = 1
"""Dim of the sequence in tokens [batch, sequence] and in activations [batch, sequence, width]."""


def has_sequence(program: Program) -> bool:
    """True if the batch has tokens in an order."""
    return bool(_lengths(program))


def sequence_pins(program: Program, size: int) -> dict[int, Placement]:
    """Placements of tokens, received activations and keys, by node number.

    Raises:
        InputError: there is no sequence, or it does not divide.
    """
    lengths = _lengths(program)
    if not lengths or any(length % size for length in lengths):
        raise InputError(
            need=f"a batch of tokens whose sequences {size} devices divide",
            got=f"sequences of {', '.join(map(str, sorted(lengths)))}" if lengths else "no tokens",
            hint="change the length of the sequence or the context-parallel degree",
        )
    pinned: dict[int, Placement] = {}
    for source in program.inputs:
        shape = program.nodes[source.node].outputs[0].shape
        if source.role in (Role.BATCH, Role.RECEIVED) and len(shape) > 1 and shape[1] in lengths:
            pinned[source.node] = _ROW
    for number, node in enumerate(program.nodes):
        if node.op == "attention" and node.phase is Phase.FORWARD:
            for value in program.operands(number)[1:3]:
                repeated = _repeated(program, value)
                if repeated is not None:
                    pinned[repeated] = REPLICATED
    return pinned


def _lengths(program: Program) -> frozenset[int]:
    """Lengths of the batch's sequences of tokens; those of a stage are what it receives."""
    types = [
        (source.role, program.nodes[source.node].outputs[0])
        for source in program.inputs
        if source.role in (Role.BATCH, Role.RECEIVED)
    ]
    tokens = {
        t.shape[1]
        for role, t in types
        if role is Role.BATCH and len(t.shape) == 2 and not t.dtype.is_float
    }
    received = {t.shape[1] for role, t in types if role is Role.RECEIVED and len(t.shape) == 3}
    return frozenset(tokens or received)


def _repeated(program: Program, value: Value) -> int | None:
    """The view that repeats a key or value for several queries, if there is one."""
    found = None
    while operator(program.nodes[value.node].op).kind is Kind.VIEW:
        (source,) = program.operands(value.node)[:1]
        grows = program.type_of(value).num_elements > program.type_of(source).num_elements
        found = value.node if grows else found
        value = source
    return found
