"""One step of a decision in time, on devices and links that differ.

Each device has two queues, one for computation and one for messages, as in `weft.cost.simulate`,
and runs its parts of the segments in the order of the sketch:

- a segment starts on a device when its queue is free and the rows that it reads have arrived;
  where it waits for sums over the batch, as batch norms have it, all devices of the group end
  together;
- rows for a group with another layout are sent as soon as they are made, once the devices of both
  are free; what several readers with one layout want is sent once;
- messages go in the order of issue: gradients that are complete before such sums or rows hold them
  up;
- gradients are synchronised as soon as those of a segment are complete, by devices that wait for
  the last of them; a product of gathered factors, and all that is computed later, waits for them;
- what layers exchange whose weights are cut holds up their group, in both passes;
- parameters that are served come from their servers at the start;
- the update runs at the end, when all gradients of the device's groups are there.

Messages hold up computation for (1 - overlap) of their time. Memory is counted in the same order:
what lasts, what groups still need, what passes inside a segment, and copies of rows that came
from other groups, until their last reader.

All times are sums and maxima, so a faster link makes nothing end later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from weft.core.errors import InputError
from weft.cost.collective import collective_seconds
from weft.parallel.bundle import SMALL_BYTES
from weft.parallel.mcts.cluster import Cluster
from weft.parallel.mcts.decision import Action, Decision, Sync, served
from weft.parallel.mcts.layer_cuts import LayerCut, LayerCuts, layer_cuts
from weft.parallel.mcts.moving import (
    Exchange,
    Synchronisation,
    exchange,
    pull_seconds,
    synchronisation,
)
from weft.parallel.mcts.sketch import Crossing, Floats, Integers, Sketch

__all__ = ["Outcome", "Simulator"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a decision comes to.

    Attributes:
        step_s: time of the step [s].
        peak_bytes: most memory in use [device] [bytes].
        filled: the largest share of a device's memory that is in use.
        busy_s: time that a device computes [device] [s].
        factored: parameters, by number, whose gradients are made from gathered factors.
        span_s: time from the start to the end of a group's segments, added up; empty if nobody
            asked [group] [s].
        idle_s: shortest time for which what a group makes waits for its readers; empty if nobody
            asked [group] [s].
    """

    step_s: float
    peak_bytes: Floats
    filled: float
    busy_s: Floats
    factored: frozenset[int]
    span_s: Floats
    idle_s: Floats

    @property
    def fits(self) -> bool:
        """True if every device has memory enough."""
        return self.filled <= 1.0

    @property
    def rank(self) -> tuple[float, float]:
        """Smaller is better: what fits by its time, and before that what lacks least memory."""
        return max(self.filled, 1.0), self.step_s


@dataclass(frozen=True, slots=True)
class _Known:
    """What is computed once of an action."""

    number: int
    action: Action
    rows: Integers
    present: Floats
    members: tuple[int, ...]
    at: Integers
    layout: int


class Simulator:
    """Simulates decisions about one step on one machine; what they share is kept."""

    def __init__(self, sketch: Sketch, cluster: Cluster, joined_bytes: float = SMALL_BYTES) -> None:
        self.sketch = sketch
        self._joined_bytes = joined_bytes
        self.cluster = cluster
        self._actions: dict[Action, _Known] = {}
        self._layouts: dict[tuple[int, ...], int] = {}
        self._exchanges: dict[tuple[int, int], Exchange] = {}
        self._synchronised: dict[tuple[int, int, int], Synchronisation] = {}
        self._reduced: dict[tuple[int, int], float] = {}
        self._served: dict[tuple[int, int], tuple[float, Floats, Floats, Floats]] = {}
        self.group: list[int] = sketch.group.tolist()
        self._crossings: dict[int, list[Crossing]] = defaultdict(list)
        for crossing in sketch.crossings:
            self._crossings[crossing.maker].append(crossing)
        self._numbers = _by_position(sketch)
        self._cuts: dict[tuple[int, ...], LayerCuts] = {}
        self.exchanges = _exchanges(sketch)
        first: dict[int, int] = {}
        for position, group in enumerate(self.group):
            first.setdefault(group, position)
        self._first = sorted((position, group) for group, position in first.items())

    def run(self, decision: Decision, *, feedback: bool = False) -> Outcome:
        """Simulate one step.

        Args:
            decision: an action for each group.
            feedback: whether to say how long groups take and wait.

        Raises:
            InputError: not one action for each group, or one that does not share out all rows
                over all devices of the machine.
        """
        return _Run(self, [self.known(a) for a in self._checked(decision)]).outcome(
            feedback=feedback
        )

    def _checked(self, decision: Decision) -> Decision:
        if len(decision) != self.sketch.num_groups:
            raise InputError(
                need=f"an action for each of {self.sketch.num_groups} groups",
                got=f"{len(decision)}",
                hint="decide about the groups of this step",
            )
        return decision

    def known(self, action: Action) -> _Known:
        """An action with what is computed once of it."""
        found = self._actions.get(action)
        if found is None:
            devices = self.cluster.num_devices
            if len(action.rows) != devices or sum(action.rows) != self.sketch.rows:
                raise InputError(
                    need=f"{self.sketch.rows} rows shared out over {devices} devices",
                    got=f"{sum(action.rows)} over {len(action.rows)}",
                    hint="give rows for every device, 0 for those that take no part",
                )
            rows = np.asarray(action.rows)
            found = self._actions[action] = _Known(
                number=len(self._actions),
                action=action,
                rows=rows,
                present=(rows > 0).astype(np.float64),
                members=action.members,
                at=np.flatnonzero(rows),
                layout=self._layouts.setdefault(action.rows, len(self._layouts)),
            )
        return found

    def exchange(self, before: _Known, after: _Known) -> Exchange:
        """Messages from one layout to another."""
        key = (before.layout, after.layout)
        found = self._exchanges.get(key)
        if found is None:
            found = exchange(self.cluster, before.action.rows, after.action.rows)
            self._exchanges[key] = found
        return found

    def synchronisation(
        self, position: int, group: int, known: _Known, turn: int
    ) -> Synchronisation:
        """How gradients meet that are complete after a segment and have this turn."""
        key = (position * self.sketch.num_groups + group, known.number, turn)
        found = self._synchronised.get(key)
        if found is None:
            numbers = self._numbers[position][group, turn]
            if known.action.sync is Sync.CUT:
                cuts = self.cuts(known.members)
                numbers = [number for number in numbers if cuts[number] is None]
            found = synchronisation(
                self.cluster, self.sketch, numbers, group, known.action, self._joined_bytes
            )
            self._synchronised[key] = found
        return found

    def cuts(self, members: tuple[int, ...]) -> LayerCuts:
        """What each layer does that some devices cut among them."""
        found = self._cuts.get(members)
        if found is None:
            found = self._cuts[members] = layer_cuts(self.cluster, self.sketch, members)
        return found

    def cut(self, decision: Decision) -> Iterator[tuple[int, LayerCut]]:
        """Parameters, by number, whose layers are cut, and how."""
        groups: list[int] = self.sketch.parameters.group.tolist()
        for number, group in enumerate(groups):
            action = decision[group]
            own = self.cuts(action.members)[number] if action.sync is Sync.CUT else None
            if own is not None:
                yield number, own

    def reduction_s(self, position: int, known: _Known) -> float:
        """Time of the sums over the batch that a segment waits for [s]."""
        key = (position, known.number)
        found = self._reduced.get(key)
        if found is None:
            count = int(self.sketch.reductions[position])
            each = float(self.sketch.reduced_bytes[position]) / count
            meeting = self.cluster.meeting(known.members)
            found = self._reduced[key] = count * collective_seconds("all-reduce", each, meeting)
        return found

    def kept(self, group: int, known: _Known) -> tuple[float, Floats, Floats, Floats]:
        """Of a group: pull [s], and on each device update [s], what lasts, and what it needs."""
        key = (group, known.number)
        found = self._served.get(key)
        if found is None:
            found = self._served[key] = self._keep(group, known)
        return found

    def _keep(self, group: int, known: _Known) -> tuple[float, Floats, Floats, Floats]:
        its, kind = self.sketch.parameters, self.cluster.kind
        numbers: list[int] = np.flatnonzero(its.group == group).tolist()
        lasting = known.present * (its.num_bytes[numbers].sum() + self.sketch.lasting_bytes[group])
        update_s = known.present * self.sketch.rest_s[group][kind]
        if known.action.sync is Sync.SERVER and len(known.members) > 1:
            servers = served(self.sketch, group, known.members)
            serves = np.zeros(self.cluster.num_devices)
            for number, server in servers.items():
                lasting[server] += its.state_bytes[number]
                update_s[server] += its.update_s[number][kind[server]]
                serves[server] = 1.0
            pull_s = pull_seconds(self.cluster, self.sketch, group, known.action)
            return pull_s, update_s, lasting, serves * self.sketch.update_bytes[group]
        if known.action.sync is Sync.CUT:
            cuts = self.cuts(known.members)
            parted = [number for number in numbers if cuts[number] is not None]
            numbers = [number for number in numbers if cuts[number] is None]
            part = known.present / len(known.members)
            update_s += part * its.update_s[parted].sum(axis=0)[kind]
            lasting += part * its.state_bytes[parted].sum()
            lasting -= (known.present - part) * its.num_bytes[parted].sum()
        update_s += known.present * its.update_s[numbers].sum(axis=0)[kind]
        lasting += known.present * its.state_bytes[numbers].sum()
        return 0.0, update_s, lasting, known.present * self.sketch.update_bytes[group]

    @property
    def groups_in_order(self) -> list[tuple[int, int]]:
        """(first position, group), in the order in which groups begin."""
        return self._first

    @property
    def crossings(self) -> dict[int, list[Crossing]]:
        """What passes between groups, by the segment that makes it."""
        return self._crossings

    @property
    def gradients(self) -> dict[int, dict[tuple[int, int], list[int]]]:
        """By position, parameters whose gradients are complete there, by group and turn."""
        return self._numbers


def _exchanges(sketch: Sketch) -> dict[int, list[tuple[int, int, bool]]]:
    """By position, parameters whose layers exchange something there if they are cut.

    Each with its group, and whether that is in the backward pass.
    """
    its = sketch.parameters
    found: dict[int, list[tuple[int, int, bool]]] = defaultdict(list)
    for number, (group, reader) in enumerate(
        zip(its.group.tolist(), its.reader.tolist(), strict=True)
    ):
        if reader >= 0:
            found[reader].append((number, group, False))
            found[int(its.position[number])].append((number, group, True))
    return dict(found)


def _by_position(sketch: Sketch) -> dict[int, dict[tuple[int, int], list[int]]]:
    its = sketch.parameters
    found: dict[int, dict[tuple[int, int], list[int]]] = defaultdict(lambda: defaultdict(list))
    for number, position in enumerate(its.position.tolist()):
        if position >= 0 and its.gradient_bytes[number]:
            key = (int(its.group[number]), int(its.turn[number]))
            found[position][key].append(number)
    return {position: dict(groups) for position, groups in found.items()}


@dataclass(slots=True)
class _Run:
    """One simulation; queues are vectors over devices."""

    simulator: Simulator
    actions: list[_Known]
    compute: Floats = field(init=False)
    messages: Floats = field(init=False)
    synced: Floats = field(init=False)
    extra: Floats = field(init=False)
    copies: Floats = field(init=False)
    ready: dict[int, Floats] = field(init=False)
    factored: list[int] = field(init=False)

    def __post_init__(self) -> None:
        sketch, devices = self.simulator.sketch, self.simulator.cluster.num_devices
        self.compute, self.messages = np.zeros(devices), np.zeros(devices)
        self.synced, self.extra = np.zeros(devices), np.zeros(devices)
        self.copies = np.zeros((sketch.num_segments + 2, devices))
        self.ready = {}
        self.factored = []

    def outcome(self, *, feedback: bool) -> Outcome:
        simulator = self.simulator
        sketch, cluster = simulator.sketch, simulator.cluster
        rows = np.asarray([known.rows for known in self.actions])
        seconds = sketch.seconds[
            np.arange(sketch.num_segments)[:, None], cluster.kind[None, :], rows[sketch.group]
        ]
        kept = [simulator.kept(group, known) for group, known in enumerate(self.actions)]
        self._pull([pull_s for pull_s, _, _, _ in kept])
        spans = self._passes(seconds, feedback=feedback)
        update_s = sum((u for _, u, _, _ in kept), np.zeros(cluster.num_devices))
        self.compute = np.maximum(self.compute, self.synced) + update_s
        peak = self._peak(rows, kept)
        span_s, idle_s = self._feedback(spans)
        return Outcome(
            step_s=float(max(self.compute.max(), self.messages.max())),
            peak_bytes=peak,
            filled=float((peak / cluster.memory_bytes).max()),
            busy_s=seconds.sum(axis=0) + self.extra + update_s,
            span_s=span_s,
            idle_s=idle_s,
            factored=frozenset(self.factored),
        )

    def _pull(self, pulls: list[float]) -> None:
        """Parameters that are served, in the order in which they are needed."""
        for position, group in self.simulator.groups_in_order:
            if pulls[group]:
                known = self.actions[group]
                end = self._together(known.at, pulls[group])
                arrived = known.present * end
                self.ready[position] = np.maximum(self.ready.get(position, 0.0), arrived)

    def _together(self, at: Integers, seconds: float) -> float:
        """A message of some devices, which wait for the last of them; when it ends."""
        start = max(self.messages[at].max(), self.compute[at].max())
        end = float(start + seconds)
        self.messages[at] = end
        self._hold_up(at, seconds)
        return end

    def _hold_up(self, at: Integers, seconds: float) -> None:
        held = (1.0 - self.simulator.cluster.overlap) * seconds
        if held:
            self.compute = self.compute.copy()
            self.compute[at] += held

    def _passes(self, seconds: Floats, *, feedback: bool) -> list[tuple[float, float]]:
        """Both passes; if asked, when the first device begins a segment and the last ends it."""
        simulator, sketch = self.simulator, self.simulator.sketch
        spans: list[tuple[float, float]] = []
        reductions = sketch.reductions.tolist()
        for position, group in enumerate(simulator.group):
            known = self.actions[group]
            arrived = self.ready.pop(position, None)
            start = self.compute if arrived is None else np.maximum(self.compute, arrived)
            self.compute = start + seconds[position]
            self._exchange(position)
            self._synchronise(position, 0)
            if reductions[position] and len(known.members) > 1:
                end = self._together(known.at, simulator.reduction_s(position, known))
                self.compute = np.maximum(self.compute, known.present * end)
            if feedback:
                spans.append((float(start[known.at].min()), float(self.compute[known.at].max())))
            self._synchronise(position, 1)
            for crossing in simulator.crossings.get(position, ()):
                self._hand_on(known, crossing)
            self._synchronise(position, 2)
        return spans

    def _exchange(self, position: int) -> None:
        """What layers need that are cut, for which all their devices wait."""
        for number, group, is_back in self.simulator.exchanges.get(position, ()):
            known = self.actions[group]
            if known.action.sync is not Sync.CUT:
                continue
            cut = self.simulator.cuts(known.members)[number]
            if cut is not None:
                end = self._together(known.at, cut.backward_s if is_back else cut.forward_s)
                self.compute = np.maximum(self.compute, known.present * end)

    def _hand_on(self, maker: _Known, crossing: Crossing) -> None:
        """Send rows to readers, once for all that have one layout."""
        wanted: dict[int, tuple[_Known, list[int]]] = {}
        for reader in crossing.readers:
            its = self.actions[self.simulator.group[reader]]
            if its.layout != maker.layout:
                wanted.setdefault(its.layout, (its, []))[1].append(reader)
        for its, positions in wanted.values():
            self._send(maker, its, crossing, positions)

    def _send(
        self, maker: _Known, reader: _Known, crossing: Crossing, positions: list[int]
    ) -> None:
        plan, row_bytes = self.simulator.exchange(maker, reader), crossing.row_bytes
        arrived = reader.present * self._together(plan.at, plan.seconds(row_bytes))
        for position in positions:
            self.ready[position] = np.maximum(self.ready.get(position, 0.0), arrived)
        # Rows that were there already are no copy, but are kept as one with those that came.
        self.copies[crossing.maker] += row_bytes * reader.rows
        self.copies[positions[-1] + 1] -= row_bytes * reader.rows

    def _synchronise(self, position: int, turn: int) -> None:
        """Gradients of parameters that several devices have."""
        for group, its_turn in self.simulator.gradients.get(position, ()):
            known = self.actions[group]
            if its_turn != turn or len(known.members) == 1:
                continue
            plan = self.simulator.synchronisation(position, group, known, turn)
            if plan.seconds:
                end = self._together(known.at, plan.seconds)
                self.synced[known.at] = np.maximum(self.synced[known.at], end)
            if plan.factored:
                end = self._together(known.at, plan.gathered_s)
                self.compute = np.maximum(self.compute, known.present * end) + plan.extra_s
                self.extra += plan.extra_s
                self.factored.extend(plan.factored)

    def _peak(self, rows: Integers, kept: list[tuple[float, Floats, Floats, Floats]]) -> Floats:
        sketch = self.simulator.sketch
        present = rows > 0
        used = sketch.held_row_bytes.T @ rows + sketch.held_bytes.T @ present
        used += self.copies.cumsum(axis=0)[:-1]
        its = rows[sketch.group]
        used[:-1] += sketch.passing_row_bytes[:, None] * its
        used[:-1] += sketch.passing_bytes[:, None] * (its > 0)
        used[-1] += np.asarray([needs for _, _, _, needs in kept]).max(axis=0)
        lasting = np.asarray([its for _, _, its, _ in kept]).sum(axis=0)
        return lasting + used.max(axis=0)

    def _feedback(self, spans: list[tuple[float, float]]) -> tuple[Floats, Floats]:
        if not spans:
            return np.zeros(0), np.zeros(0)
        sketch = self.simulator.sketch
        starts, ends = np.asarray(spans).T
        span, idle = np.zeros(sketch.num_groups), np.full(sketch.num_groups, np.inf)
        np.add.at(span, sketch.group, ends - starts)
        for crossing in sketch.crossings:
            wait = float(starts[list(crossing.readers)].min() - ends[crossing.maker])
            group = sketch.group[crossing.maker]
            idle[group] = min(float(idle[group]), max(wait, 0.0))
        return span, np.where(np.isfinite(idle), idle, 0.0)
