"""Where nodes go that others decide about: the backward pass, the update, and what lasts.

A gradient is computed where its forward counterpart is: that of a parameter with the parameter,
others with what they read of the forward pass. An update goes with the parameter that it leads
to, and a parameter with its first reader.
"""

from __future__ import annotations

from collections.abc import Sequence

from weft.parallel.mcts.carrying import FREE
from weft.parallel.weights import parameters_led_to, weight_values
from weft.program.graph import Phase, Program, Value

__all__ = ["followed"]


def followed(program: Program, decided: Sequence[int]) -> tuple[int, ...]:
    """A group for every node, from the groups of some nodes of the forward pass.

    Args:
        program: the step.
        decided: for each node its group, or `FREE`.

    Returns:
        The same with nothing free.
    """
    found = list(decided)
    _to_readers(program, found, Phase.FORWARD)
    _states(program, found)
    leads_to = _parameters(program)
    weights = weight_values(program)
    for number, node in enumerate(program.nodes):
        if found[number] == FREE and node.phase is not Phase.FORWARD:
            found[number] = _counterpart(program, number, found, leads_to[number], weights)
    for phase in (Phase.UPDATE, Phase.BACKWARD, Phase.FORWARD):
        _to_readers(program, found, phase)
    rest = found[program.loss.node]  # counters of steps, of which nothing else is known
    return tuple(rest if group == FREE else group for group in found)


def _to_readers(program: Program, found: list[int], phase: Phase) -> None:
    """Free nodes of a phase go where their first reader is that is somewhere."""
    for number in reversed(range(len(program.nodes))):
        if found[number] == FREE and program.nodes[number].phase is phase:
            readers = (found[reader] for reader, _ in program.users[number])
            found[number] = next((group for group in readers if group != FREE), FREE)


def _states(program: Program, found: list[int]) -> None:
    """Optimizer state goes where its parameter is."""
    for source in program.inputs:
        if source.parameter and found[source.node] == FREE:
            found[source.node] = found[program.input_by_name[source.parameter].node]


def _parameters(program: Program) -> list[int]:
    """The parameter that a node leads to, or whose gradient it makes beside other things."""
    leads_to = parameters_led_to(program)
    found = list(leads_to)
    for number, node in enumerate(program.nodes):
        if node.phase is Phase.UPDATE and leads_to[number] >= 0:
            for value in program.operands(number):
                made = program.nodes[value.node]
                if found[value.node] < 0 and made.phase is Phase.BACKWARD and made.outputs[0].shape:
                    found[value.node] = leads_to[number]
    return found


def _counterpart(
    program: Program,
    number: int,
    found: Sequence[int],
    parameter: int,
    weights: frozenset[Value],
) -> int:
    """Group of a node that is not of the forward pass; `FREE` if nothing that it reads tells."""
    if parameter >= 0:
        return found[parameter]
    reads = program.operands(number)
    # A weight that is multiplied with is that of the layer whose gradient is made.
    told = [found[value.node] for value in reads if value in weights]
    if told and told[0] != FREE:
        return told[0]
    phase = program.nodes[number].phase
    forward = [v.node for v in reads if program.nodes[v.node].phase is Phase.FORWARD]
    forward = [node for node in forward if found[node] != FREE]
    if phase is Phase.BACKWARD and forward:
        return found[max(forward)]
    # A sum of gradients is made where the last of them is: the others have been waiting.
    known = [value.node for value in reads if found[value.node] != FREE]
    return found[max(known)] if known else FREE
