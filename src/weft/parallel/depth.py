"""Short versions of a deep program: the same first and last layers, few in between.

Layers that fold onto one another do the same work, so a plan that treats them alike costs a
fixed part and a part for each layer. Two short versions, one layer apart, give both; the
step of the whole program follows without simulating it. The plan that is chosen in the end
is simulated whole. Where there are several stacks, as of an encoder and a decoder, each is
shortened; those that are equally deep grow together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby

from weft.parallel.plan import Prediction
from weft.program.fold import Folding, Layer
from weft.program.graph import Arg, Node, Program, Value, map_values
from weft.program.lengthen import Lengthened, lengthen
from weft.program.salt import salt_of, with_salt

__all__ = ["Gap", "Shortened", "Views", "extrapolated", "shorten", "undivided", "views_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Layers that were left out of a stack.

    Attributes:
        stack: module path of the stack.
        lower: number of the layer above which they are left out.
        dropped: how many.
    """

    stack: str
    lower: int
    dropped: int


@dataclass(frozen=True)
class Shortened:
    """A program with layers left out.

    Attributes:
        program: the short program.
        origin: for each of its nodes, the node of the whole program.
        times: for each of its nodes, how many of the whole program it stands for: those of the
            layer below a gap for those of the layers left out as well.
        gaps: where they are left out, one for each stack; empty if nowhere.
    """

    program: Program
    origin: tuple[int, ...]
    times: tuple[int, ...]
    gaps: tuple[Gap, ...] = ()

    def lengthened(self, program: Program) -> Lengthened | None:
        """A program made from the short one, with the layers that were left out.

        Args:
            program: the short one itself, or that of one of its micro-batches.
        """
        origin = tuple(range(len(program.nodes)))
        for gap in self.gaps:
            grown = lengthen(program, gap.stack, gap.lower, gap.dropped)
            if grown is None:
                return None
            program, origin = grown.program, tuple(origin[node] for node in grown.origin)
        return Lengthened(program, origin)


def undivided(program: Program) -> Shortened:
    """A program with nothing left out."""
    every = range(len(program.nodes))
    return Shortened(program, tuple(every), (1,) * len(every))


@dataclass(frozen=True)
class Views:
    """Short versions of a program.

    Attributes:
        short: the shortest.
        longer: versions with one more layer in stacks that lack as many layers as is said beside;
            each stack has one more in one of them.
    """

    short: Shortened
    longer: tuple[tuple[Shortened, int], ...]

    @property
    def every(self) -> tuple[Shortened, ...]:
        """All versions."""
        return (self.short, *(view for view, _ in self.longer))

    def predict(self, simulate: Callable[[Shortened], Prediction]) -> Prediction:
        """Prediction for the whole program, from simulations of the short ones."""
        short = simulate(self.short)
        return extrapolated(short, [(simulate(view), steps) for view, steps in self.longer])


def views_of(program: Program, folding: Folding) -> Views | None:
    """Short versions that are worth it: None if the program is not deep or not uniform."""
    stacks = [stack for stack in _stacks(folding) if stack.length - SHORT >= WORTHWHILE]
    short = _shorten(program, stacks, [SHORT] * len(stacks)) if stacks else None
    if short is None:
        return None
    longer: list[tuple[Shortened, int]] = []
    for depth in sorted({stack.length for stack in stacks}):
        interior = [SHORT + (stack.length == depth) for stack in stacks]
        view = _shorten(program, stacks, interior)
        if view is None:
            return None
        longer.append((view, depth - SHORT))
    return Views(short, tuple(longer))


SHORT = 2
"""Layers of a run in the shortest version. Derived: the first has a neighbour of another kind
below, the last one above."""
WORTHWHILE = 6
"""Layers left out of a stack from which on two short simulations are cheaper than a whole one.
Derived: the short ones have four and five layers."""


def shorten(program: Program, folding: Folding, interior: int) -> Shortened | None:
    """Keep `interior` layers of each run of layers that are alike, and all outside of the runs.

    Args:
        program: with stacks of layers, of which the first and the last few may be of other kinds.
        folding: of the program.
        interior: layers of a run to keep, at least 2.

    Returns:
        The short program; None if no stack has a longer run.
    """
    stacks = [stack for stack in _stacks(folding) if stack.length > interior]
    return _shorten(program, stacks, [interior] * len(stacks)) if stacks else None


@dataclass(frozen=True, slots=True)
class _Stack:
    """The layers of a stack, and its longest run of layers that are folded onto one.

    Attributes:
        layers: all, from the first on.
        start, end: positions of the first layer of the run and of the one behind it.
    """

    layers: tuple[Layer, ...]
    start: int
    end: int

    @property
    def length(self) -> int:
        """How many layers the run has."""
        return self.end - self.start

    def apart(self, kept: int) -> tuple[tuple[Layer, ...], tuple[Layer, ...], tuple[Layer, ...]]:
        """Layers below a gap, in it and above it, so that so many of the run are kept."""
        low, high = self.start + kept - 1, self.end - 1
        return self.layers[:low], self.layers[low:high], self.layers[high:]


def _stacks(folding: Folding) -> list[_Stack]:
    """The stacks of a program."""
    found: dict[str, list[Layer]] = {}
    for layer in sorted(folding.layers, key=lambda layer: layer.index):
        found.setdefault(layer.stack, []).append(layer)
    return [_Stack(tuple(layers), *_longest_run(layers)) for layers in found.values()]


def _longest_run(layers: Sequence[Layer]) -> tuple[int, int]:
    kinds = [list(run) for _, run in groupby(layers, key=lambda layer: layer.representative)]
    ends = list(accumulate(map(len, kinds)))
    end, length = max(zip(ends, map(len, kinds), strict=True), key=lambda run: run[1])
    return end - length, end


def _shorten(program: Program, stacks: Sequence[_Stack], kept: Sequence[int]) -> Shortened | None:
    """Shorten one stack after the other; None if something outside reads all of its layers."""
    short = undivided(program)
    for stack, count in zip(stacks, kept, strict=True):
        number = {old: new for new, old in enumerate(short.origin)}
        layers = tuple(
            replace(own, nodes=tuple(number[n] for n in own.nodes)) for own in stack.layers
        )
        cut = _without(short.program, *replace(stack, layers=layers).apart(count))
        if cut is None:
            return None
        short = Shortened(
            cut.program,
            tuple(short.origin[node] for node in cut.origin),
            tuple(
                short.times[node] * times for node, times in zip(cut.origin, cut.times, strict=True)
            ),
            (*short.gaps, *cut.gaps),
        )
    return short


def _without(
    program: Program, below: Sequence[Layer], gone: Sequence[Layer], above: Sequence[Layer]
) -> Shortened | None:
    """A program without layers between two of a stack."""
    stack = (*below, *gone, *above)
    position = {
        node: (layer.index, place) for layer in stack for place, node in enumerate(layer.nodes)
    }
    dropped = {node for layer in gone for node in layer.nodes}
    return _Cut(program, position, dropped, below[-1], above[0]).shortened(len(gone))


class _Cut:
    """Joins the layer below the gap to the layer above it."""

    def __init__(
        self,
        program: Program,
        position: dict[int, tuple[int, int]],
        gone: set[int],
        below: Layer,
        above: Layer,
    ) -> None:
        self._program = program
        self._position = position
        self._gone = gone
        self._below = below
        self._above = above
        self._last_salt, self._salts = _salts(program, below, gone)

    def shortened(self, num_dropped: int) -> Shortened | None:
        kept = [n for n in range(len(self._program.nodes)) if n not in self._gone]
        number = {old: new for new, old in enumerate(kept)}
        try:
            nodes = tuple(
                self._unsalted(
                    replace(
                        self._program.nodes[old],
                        args=self._arguments(old, number, num_dropped),
                        scope=self._closed_up(self._program.nodes[old].scope, num_dropped),
                    )
                )
                for old in kept
            )
            updates = tuple(
                (number[n], self._value(value, n, number))
                for n, value in self._program.updates
                if n not in self._gone
            )
            loss = self._value(self._program.loss, self._program.loss.node, number)
        except KeyError:
            # Something outside the layers reads every one of them.
            return None
        program = replace(
            self._program,
            nodes=nodes,
            inputs=tuple(
                replace(
                    i,
                    node=number[i.node],
                    name=self._closed_up(i.name, num_dropped),
                    parameter=self._closed_up(i.parameter, num_dropped),
                )
                for i in self._program.inputs
                if i.node not in self._gone
            ),
            loss=loss,
            updates=updates,
        )
        gap = Gap(stack=self._below.stack, lower=self._below.index, dropped=num_dropped)
        stand_in = frozenset(self._below.nodes)
        times = tuple(1 + num_dropped * (node in stand_in) for node in kept)
        return Shortened(program, tuple(kept), times, (gap,))

    def _unsalted(self, node: Node) -> Node:
        """A node whose random call, if it is one, counts on from those below the gap."""
        salt = salt_of(node)
        return node if salt is None or salt <= self._last_salt else with_salt(node, -self._salts)

    def _arguments(self, old: int, number: dict[int, int], num_dropped: int) -> tuple[Arg, ...]:
        node = self._program.nodes[old]
        if node.op == "input":
            return (self._closed_up(self._program.input_by_node[old].name, num_dropped),)
        return self._moved(node.args, old, number)

    def _closed_up(self, path: str, num_dropped: int) -> str:
        """A path with the layers above the gap numbered on from those below it."""

        def moved(match: re.Match[str]) -> str:
            index = int(match[2])
            return match[1] + str(index - num_dropped if index >= self._above.index else index)

        stack = re.escape(self._above.stack)
        return re.sub(rf"((?:^|\.){stack}\.)(\d+)(?=\.|$)", moved, path, count=1)

    def _moved(self, args: tuple[Arg, ...], reader: int, number: dict[int, int]) -> tuple[Arg, ...]:
        return map_values(args, lambda value: self._value(value, reader, number))

    def _value(self, value: Value, reader: int, number: dict[int, int]) -> Value:
        if value.node not in self._gone:
            return Value(number[value.node], value.output)
        layer, _ = self._position[reader]
        _, place = self._position[value.node]
        neighbour = self._above if layer <= self._below.index else self._below
        return Value(number[neighbour.nodes[place]], value.output)


def _salts(program: Program, below: Layer, gone: Collection[int]) -> tuple[int, int]:
    """The last random call of the layer below the gap, and how many are left out."""

    def calls(nodes: Iterable[int]) -> list[int]:
        found = (salt_of(program.nodes[number]) for number in nodes)
        return [salt for salt in found if salt is not None]

    last = max(calls(below.nodes), default=-1)
    return last, len(set(calls(gone)))


def extrapolated(short: Prediction, longer: Sequence[tuple[Prediction, float]]) -> Prediction:
    """The prediction as far from `short` as steps towards each of the `longer` ones lead.

    Args:
        short: where to begin.
        longer: predictions, and how many times as far as each of them to go.
    """

    def at(field: str) -> float:
        first = float(getattr(short, field))
        return first + sum(steps * (float(getattr(of, field)) - first) for of, steps in longer)

    return Prediction(
        step_s=at("step_s"),
        compute_s=at("compute_s"),
        communication_s=at("communication_s"),
        exposed_s=at("exposed_s"),
        peak_bytes=at("peak_bytes"),
        state_bytes=at("state_bytes"),
    )
