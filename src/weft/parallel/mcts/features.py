"""What a policy sees of a decision that is half taken.

Groups of operators and groups of devices with numbers for each, and for each pair of them; and the
choices that are open. All is in units of the step and the machine, so that models and machines of
other sizes look alike: with C the L2 norm of the times of all groups and B the highest bandwidth,

    times / C      bandwidths / B      bytes / (C B)      what was simulated / the step's time

and of the first three, which span many orders of magnitude, the square roots.

Source: TAG (arXiv 2302.06126): its features and their units, the feedback from simulating what is
decided so far included; roots, and a device group's way to the network, are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weft.parallel.mcts.options import Choice, Method, Options, State
from weft.parallel.mcts.simulate import Outcome
from weft.parallel.mcts.sketch import Floats, Integers

__all__ = [
    "CHOICE_WIDTH",
    "DEVICE_WIDTH",
    "OPERATOR_WIDTH",
    "PLACE_WIDTH",
    "Observation",
    "Observer",
]

_METHODS = tuple(Method)
_SHARES = (1, 2, 4, 8)
"""Parts of the batch at which times are shown."""
OPERATOR_WIDTH = len(_SHARES) + 2 + len(_METHODS) + 4
DEVICE_WIDTH = 6
PLACE_WIDTH = len(_SHARES) + 1
CHOICE_WIDTH = len(_METHODS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One turn.

    Attributes:
        operators: [group of operators, `OPERATOR_WIDTH`].
        devices: [group of devices, `DEVICE_WIDTH`].
        tensors: what passes [from, to]; 0 where nothing does.
        links: bandwidth [group of devices, group of devices].
        places: [group of operators, group of devices, `PLACE_WIDTH`].
        turn: group of operators that is decided about.
        methods: one-hot [choice, `CHOICE_WIDTH`].
        parts: takes part, is open [choice, group of devices, 2].
    """

    operators: Floats
    devices: Floats
    tensors: Floats
    links: Floats
    places: Floats
    turn: int
    methods: Floats
    parts: Floats


class Observer:
    """Observes one step on one machine; what does not change is kept."""

    def __init__(self, options: Options) -> None:
        self.options = options
        sketch, cluster = options.sketch, options.cluster
        self._first = np.asarray([cluster.members_of((g,))[0] for g in range(cluster.num_groups)])
        self._member = np.zeros((cluster.num_devices, cluster.num_groups))
        self._member[np.arange(cluster.num_devices), cluster.device_group] = 1.0
        rows = [max(1, sketch.rows // share) for share in _SHARES]
        kind = cluster.kind[self._first]
        times = sketch.group_s[:, kind][:, :, rows]
        mean = times.mean(axis=1)
        self._unit_s = float(np.linalg.norm(mean[:, 0])) or 1.0
        self._links = self._bandwidths()
        unit_bytes = self._unit_s * float(self._links.max())
        self._links = np.sqrt(self._links / self._links.max())
        self._times = np.sqrt(times / self._unit_s)
        inside = sketch.held_row_bytes.max(axis=1) * sketch.rows
        sizes = np.sqrt(np.stack([sketch.group_bytes, inside], axis=1) / unit_bytes)
        self._operators = np.concatenate([np.sqrt(mean / self._unit_s), sizes], axis=1)
        self._tensors = np.sqrt(self._crossing() / unit_bytes)
        counts = self._member.sum(axis=0)
        memory = np.sqrt(cluster.memory_bytes[self._first] / unit_bytes)
        outside = np.where(np.eye(len(counts), dtype=bool), 0.0, self._links).max(axis=1)
        self._devices = np.stack([counts / 4.0, memory, np.diag(self._links), outside], axis=1)

    def _bandwidths(self) -> Floats:
        """Between groups of devices, and inside them on the diagonal [bytes/s]."""
        cluster = self.options.cluster
        s_per_byte = cluster.s_per_byte[np.ix_(self._first, self._first)].copy()
        inside = [group.link.bytes_per_s.value for group in cluster.machine.groups]
        np.fill_diagonal(s_per_byte, 1.0 / np.asarray(inside))
        return 1.0 / s_per_byte

    def _crossing(self) -> Floats:
        sketch = self.options.sketch
        found = np.zeros((sketch.num_groups, sketch.num_groups))
        for crossing in sketch.crossings:
            for group in {int(sketch.group[reader]) for reader in crossing.readers}:
                found[sketch.group[crossing.maker], group] += crossing.row_bytes * sketch.rows
        return found

    def observe(self, state: State, outcome: Outcome, steps: tuple[State, ...]) -> Observation:
        """What a policy sees.

        Args:
            state: what has been decided.
            outcome: what that comes to, with feedback.
            steps: states after one more step; at least one.
        """
        choices = self.options.completed(state)
        rows = self._rows(choices)
        offered = [step.choices[-1] for step in steps]
        methods = np.zeros((len(offered), CHOICE_WIDTH))
        methods[np.arange(len(offered)), [_METHODS.index(c.method) for c in offered]] = 1.0
        parts = np.asarray([[(p is not False, p is None) for p in c.takes_part] for c in offered])
        placed = self._share(rows)
        return Observation(
            operators=self._seen_operators(state, outcome, [c.method for c in choices]),
            devices=np.concatenate([self._devices, self._seen_devices(outcome)], axis=1),
            tensors=self._tensors,
            links=self._links,
            places=np.concatenate([self._times, placed[:, :, None]], axis=2),
            turn=min(state.turn, self.options.sketch.num_groups - 1),
            methods=methods,
            parts=parts.astype(np.float64),
        )

    def _rows(self, choices: tuple[Choice, ...]) -> Integers:
        decision = self.options.resolved(choices)
        return np.asarray([action.rows for action in decision])

    def _share(self, rows: Integers) -> Floats:
        """Part of its rows that each group of operators has on each group of devices."""
        return rows @ self._member / self.options.sketch.rows

    def _seen_operators(self, state: State, outcome: Outcome, methods: list[Method]) -> Floats:
        count = len(methods)
        now = np.zeros((count, len(_METHODS) + 4))
        now[np.arange(count), [_METHODS.index(method) for method in methods]] = 1.0
        now[:, -4] = outcome.span_s / outcome.step_s
        now[:, -3] = outcome.idle_s / outcome.step_s
        now[: state.turn, -2] = 1.0
        now[min(state.turn, count - 1), -1] = 1.0
        return np.concatenate([self._operators, now], axis=1)

    def _seen_devices(self, outcome: Outcome) -> Floats:
        """Highest share of memory in use, and mean share of the time that is computed."""
        filled = outcome.peak_bytes / self.options.cluster.memory_bytes
        busy = outcome.busy_s / outcome.step_s
        highest = np.where(self._member > 0, filled[:, None], 0.0).max(axis=0)
        mean = (busy[:, None] * self._member).sum(axis=0) / self._member.sum(axis=0)
        return np.stack([np.minimum(highest, 4.0), mean], axis=1)
