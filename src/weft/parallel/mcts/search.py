"""Tree search for a decision: what the simulator says of a leaf is its value.

    value   -1 if a device has too little memory, else r = baseline time / time - 1, and r^(1/4)
            where r > 1
    select  the child with the largest   q + c p sqrt(n of the parent) / (1 + n),
            c = sqrt(number of siblings / 10)
    expand  a leaf into all next steps with their priors p, and simulate the leaf itself, with
            undecided groups following the first

q is the mean value of a child's simulations and n their number. The best leaf that was simulated
is what comes out; the baseline itself is the first of them. There is no chance in it. Where all
below a child has been simulated it is not selected again, so a search that runs on has seen all.

Source: TAG (arXiv 2302.06126), as its experiments run it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from weft.parallel.mcts.decision import Action, Decision, Sync
from weft.parallel.mcts.options import Choice, Options, State
from weft.parallel.mcts.simulate import Outcome, Simulator
from weft.parallel.mcts.sketch import Floats, Sketch
from weft.parallel.mcts.varying import variations

__all__ = ["CLOSE", "Found", "Prior", "Search", "Timed", "Tree", "baseline", "uniform", "value_of"]

S = TypeVar("S")

CLOSE = 1.3
"""Time of a decision over that of the best, up to which it may turn out to be the better one.
Derived: plans took up to a fifth longer than the sketch said, and others no longer."""
COUNTS = 0.5
"""Part of the time, and of the bytes, that groups have which count. Chosen."""


class Prior(Protocol):
    """Says which next steps of a state are promising."""

    def __call__(
        self, options: Options, state: State, outcome: Outcome, steps: tuple[State, ...]
    ) -> Floats:
        """Probabilities of the next steps.

        Args:
            options: where the choices come from.
            state: what has been decided.
            outcome: what that comes to, with feedback.
            steps: states after one more step.
        """
        ...


def uniform(options: Options, state: State, outcome: Outcome, steps: tuple[State, ...]) -> Floats:
    """All steps alike."""
    return np.full(len(steps), 1.0 / len(steps))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search came to.

    Attributes:
        choices: the best that was simulated, for each group.
        decision: what they mean.
        outcome: what it comes to.
        baseline_s: time of the baseline [s].
        simulations: how many were run.
        progress: (simulation, time of the best so far), where it got better [s].
    """

    choices: tuple[Choice, ...]
    decision: Decision
    outcome: Outcome
    baseline_s: float
    simulations: int
    progress: tuple[tuple[int, float], ...]

    @property
    def speedup(self) -> float:
        """Time of the baseline over that of the decision."""
        return self.baseline_s / self.outcome.step_s


def baseline(simulator: Simulator, options: Options) -> tuple[tuple[Choice, ...], Outcome]:
    """Data parallel over all devices; if that does not fit, operators spread over them."""
    even = (options.baseline,) * simulator.sketch.num_groups
    outcome = simulator.run(options.resolved(even))
    if outcome.fits:
        return even, outcome
    spread = (options.everywhere,) * simulator.sketch.num_groups
    return spread, simulator.run(options.resolved(spread))


class Timed(Protocol):
    """What was simulated."""

    @property
    def fits(self) -> bool:
        """True if there is memory enough."""
        ...

    @property
    def step_s(self) -> float:
        """Time of a step [s]."""
        ...


def value_of(outcome: Timed, baseline_s: float) -> float:
    """How good an outcome is; 0 for the baseline.

    Example:
        >>> from types import SimpleNamespace
        >>> value_of(SimpleNamespace(fits=True, step_s=0.5), 0.75)
        0.5
    """
    if not outcome.fits:
        return -1.0
    gain = baseline_s / outcome.step_s - 1.0
    return gain**0.25 if gain > 1.0 else gain


class Tree(Generic[S]):
    """A state with what is known of it; children are made when it is first visited."""

    __slots__ = ("children", "open", "prior", "state", "total", "visits")

    def __init__(self, state: S) -> None:
        self.state = state
        self.children: list[Tree[S]] | None = None
        self.prior = np.zeros(0)
        self.visits = np.zeros(0)
        self.total = np.zeros(0)
        self.open = np.zeros(0, bool)

    @property
    def is_open(self) -> bool:
        """True if something below has not been simulated."""
        return self.children is None or bool(self.open.any())

    def select(self) -> int:
        """The child to go to."""
        known = np.maximum(self.visits, 1.0)
        explore = np.sqrt(len(self.visits) / 10.0 * max(1.0, self.visits.sum()))
        score = self.total / known + explore * self.prior / (1.0 + self.visits)
        return int(np.where(self.open, score, -np.inf).argmax())

    def expand(self, steps: tuple[S, ...], prior: Floats) -> None:
        """Make the children."""
        self.children = [Tree(step) for step in steps]
        self.prior = prior
        self.visits, self.total = np.zeros(len(steps)), np.zeros(len(steps))
        self.open = np.ones(len(steps), bool)

    def play(self, visit: Callable[[Tree[S]], float]) -> float:
        """Go down to a leaf, visit it, and note its value on the way; returns the value.

        Args:
            visit: says what a leaf is worth, and makes its children.
        """
        node, way = self, list[tuple[Tree[S], int]]()
        while node.children:
            child = node.select()
            way.append((node, child))
            node = node.children[child]
        value = visit(node)
        for parent, child in reversed(way):
            parent.visits[child] += 1.0
            parent.total[child] += value
            parent.open[child] = node.is_open
            node = parent
        return value


class Search:
    """Searches one step on one machine; it can go on after it was stopped.

    With `feedback`, outcomes say how long groups take and wait, as a learned prior needs it.
    """

    def __init__(
        self,
        simulator: Simulator,
        options: Options,
        prior: Prior = uniform,
        *,
        feedback: bool = False,
    ) -> None:
        self._feedback = feedback or prior is not uniform
        self.simulator = simulator
        self.options = options
        self.prior = prior
        self.root = Tree(State())
        choices, outcome = baseline(simulator, options)
        self.baseline_s = outcome.step_s
        self._best = (choices, outcome)
        self._progress: list[tuple[int, float]] = [(0, outcome.step_s)]
        self._simulations = 0
        self._known: dict[Decision, Outcome] = {}

    def run(self, simulations: int, stop: Callable[[], bool] = lambda: False) -> Found:
        """Simulate so many leaves more, or until somebody says stop.

        Args:
            simulations: how many.
            stop: asked before each of them.
        """
        for _ in range(simulations):
            if stop() or not self.root.is_open:
                break
            self.play(self.root)
        return self.found()

    def found(self) -> Found:
        """The best so far."""
        choices, outcome = self._best
        return Found(
            choices=choices,
            decision=self.options.resolved(choices),
            outcome=outcome,
            baseline_s=self.baseline_s,
            simulations=self._simulations,
            progress=tuple(self._progress),
        )

    def refine(self, simulations: int, stop: Callable[[], bool] = lambda: False) -> Found:
        """Vary the best, as long as that makes it better.

        Args:
            simulations: how many at most.
            stop: asked before each of them.
        """
        left, improved = simulations, True
        while improved:
            improved = False
            for changed in variations(lambda: self._best[0], self.options):
                if left <= 0 or stop():
                    return self.found()
                if changed != self._best[0]:
                    before = len(self._known)
                    improved |= self._note(changed, self._simulated(changed))
                    left -= len(self._known) - before
        return self.found()

    def best(self, count: int) -> list[tuple[Decision, Outcome]]:
        """The best decisions that were simulated and differ in what counts, best first.

        Two are alike if they do the same with the groups that take most time and hold most bytes,
        as far as it makes a difference.
        None is listed that takes much longer than the best.

        Args:
            count: how many at most.
        """
        best = (self.options.resolved(self._best[0]), self._best[1])
        sketch = self.simulator.sketch
        heavy, holds = _heavy(sketch), np.isin(range(sketch.num_groups), sketch.parameters.group)
        most_s = CLOSE * best[1].step_s
        found: dict[object, tuple[Decision, Outcome]] = {}
        ranked = sorted(self._known.items(), key=lambda item: item[1].rank)
        for decision, outcome in (best, *ranked):
            if len(found) == count:
                break
            if outcome.fits is best[1].fits and outcome.step_s <= most_s:
                about = [_done(decision[g], holds=bool(holds[g])) for g in heavy]
                cut = tuple(self.simulator.cut(decision))
                found.setdefault((*about, outcome.factored, cut), (decision, outcome))
        return list(found.values())

    def outcome(self, state: State) -> Outcome:
        """What a state that was simulated comes to."""
        return self._known[self.options.decision(state)]

    def play(self, root: Tree[State]) -> float:
        """Simulate a leaf below, and note its value on the way; returns the value."""
        return root.play(self._visit)

    def _visit(self, leaf: Tree[State]) -> float:
        choices = self.options.completed(leaf.state)
        outcome = self._simulated(choices)
        if leaf.children is None:
            steps = self.options.following(leaf.state)
            prior = self.prior(self.options, leaf.state, outcome, steps) if steps else np.zeros(0)
            leaf.expand(steps, prior)
        self._note(choices, outcome)
        return value_of(outcome, self.baseline_s)

    def _simulated(self, choices: tuple[Choice, ...]) -> Outcome:
        self._simulations += 1
        decision = self.options.resolved(choices)
        outcome = self._known.get(decision)
        if outcome is None:
            outcome = self.simulator.run(decision, feedback=self._feedback)
            self._known[decision] = outcome
        return outcome

    def _note(self, choices: tuple[Choice, ...], outcome: Outcome) -> bool:
        """Keep it if it is the best so far; whether it is."""
        better = outcome.rank < self._best[1].rank
        if better:
            self._best = (choices, outcome)
            self._progress.append((self._simulations, outcome.step_s))
        return better


def _done(action: Action, *, holds: bool) -> object:
    """What a group does; synchronisation makes a difference if it holds parameters."""
    return action.rows, holds and action.sync is Sync.SERVER


def _heavy(sketch: Sketch) -> tuple[int, ...]:
    """Groups that count, by their time and by what they hold."""
    found: list[int] = []
    for weight in (sketch.group_s[:, :, -1].mean(axis=1), sketch.group_bytes):
        order = np.argsort(-weight, kind="stable")
        reached = np.cumsum(weight[order])
        count = 1 + int(np.searchsorted(reached, COUNTS * float(reached[-1])))
        found += [int(group) for group in order[:count]]
    return tuple(sorted(set(found)))
