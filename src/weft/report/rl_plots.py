"""Pictures of runs of asynchronous training: a panel for each staleness, a line for each group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from weft.report.markup import Markup, join, tag
from weft.report.plot.lanes import Lane, histogram_lanes, share_lanes
from weft.report.plot.lines import Level
from weft.report.plot.panels import DASHES, HUES, Band, Panel, key, panel_plot
from weft.report.rl_stats import Curve, Group, curve

__all__ = ["Drawing", "drawing"]

_LINES = 8
"""Lines in a panel, at most. Chosen: as many as there are colours."""
_POINTS = {1: 120, 2: 80}
_FEWEST = 50
"""Points of a curve, at most, by how many panels there are. Chosen: one for each five to seven
pixels, as closer ones show noise rather than where a line goes."""

_LANES = 24
"""Groups in a picture of lanes, at most; of more, those with the highest final reward."""

_REGIMES = {
    "first": "hue-rest",
    "safe": "hue-0",
    "project": "hue-3",
    "skip": "hue-1",
    "invalid": "hue-4",
}
_MEANINGS = {
    "hue-rest": "first: nothing to compare with",
    "hue-0": "safe: used as it is",
    "hue-3": "project: a part taken out",
    "hue-1": "skip: no step taken",
    "hue-4": "invalid: NaN or infinite",
    "hue-7": "another",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """Which groups are drawn, and how.

    Attributes:
        panels: groups of each panel, by its title.
        hues, dashes: number of the colour of each method, of the pattern of each learning rate.
        groups: all of them, for lanes.
        left_out: how many groups no panel has.
    """

    panels: Mapping[str, tuple[Group, ...]]
    hues: Mapping[str, int]
    dashes: Mapping[str, int]
    groups: tuple[Group, ...]
    left_out: int

    def lines(
        self, name: str, *, title: str, y_title: str, levels: Sequence[Level] = ()
    ) -> Markup | None:
        """A field of steps over steps; None where no group knows it."""
        panels = [
            Panel(title=words, bands=tuple(self._bands(groups, name)))
            for words, groups in self.panels.items()
        ]
        panels = [panel for panel in panels if panel.bands]
        if not panels:
            return None
        return panel_plot(panels, title=title, x_title="step", y_title=y_title, levels=levels)

    def _bands(self, groups: Sequence[Group], name: str) -> Iterable[Band]:
        for group in groups:
            found = curve(group.runs, name, points=self.points)
            if found is not None:
                yield Band(
                    name=self.label(group),
                    points=_points(found),
                    hue=self.hues[group.method],
                    dash=self.dashes[group.learning_rate],
                )

    @property
    def points(self) -> int:
        """How many points a curve has at most."""
        return _POINTS.get(len(self.panels), _FEWEST)

    def legend(self) -> Markup:
        """Methods by colour and, where there are several, learning rates by pattern."""
        drawn = {group.method for groups in self.panels.values() for group in groups}
        by_hue: dict[int, list[str]] = {}
        for method, hue in self.hues.items():
            if method in drawn:
                by_hue.setdefault(hue, []).append(method)
        methods = [tag("li", key(hue, 0), ", ".join(names)) for hue, names in by_hue.items()]
        rates = [
            tag("li", key(HUES, dash), f"learning rate {rate or 'not told'}")
            for rate, dash in self.dashes.items()
        ]
        return tag("ul", *methods, *(rates if len(rates) > 1 else []), class_="legend")

    def label(self, group: Group) -> str:
        """A group in a few words: no more than tells it from the others."""
        words = [group.method]
        for name, short in (
            ("staleness", "s="),
            ("learning_rate", "lr "),
            ("task", ""),
            ("engine", ""),
        ):
            told = getattr(group, name)
            if told and len({getattr(one, name) for one in self.groups}) > 1:
                words.append(f"{short}{told}")
        return ", ".join(words)

    def regimes(self) -> Markup | None:
        """What was done with gradients, as shares of steps; None where no run tells."""
        lanes: list[Lane] = []
        for group in self._best(self.groups):
            parts: dict[str, float] = {}
            for run in group.runs:
                for regime, steps in run.regimes.items():
                    style = _REGIMES.get(regime, "hue-7")
                    parts[style] = parts.get(style, 0.0) + steps
            if parts:
                lanes.append(Lane(name=self.label(group), parts=parts))
        if not lanes:
            return None
        used = {
            style: name
            for style, name in _MEANINGS.items()
            if any(style in lane.parts for lane in lanes)
        }
        entries = (
            tag("li", tag("span", class_=f"patch {style}"), name) for style, name in used.items()
        )
        title = "Share of steps by what was done with their gradients"
        picture = share_lanes(lanes, used, title=title, x_title="share of steps")
        return join(tag("ul", *entries, class_="legend"), picture)

    def lags(self) -> Markup | None:
        """How old samples were when they were trained; None where no run tells."""
        by_panel: dict[str, dict[int, float]] = {}
        for group in self.groups:
            parts = by_panel.setdefault(_panel_title(group, self.groups), {})
            for run in group.runs:
                for lag, samples in run.lags.items():
                    parts[lag] = parts.get(lag, 0.0) + samples
        lanes = [Lane(name=title, parts=parts) for title, parts in by_panel.items() if parts]
        if not lanes:
            return None
        title = "Samples by how old they were when they were trained"
        return histogram_lanes(lanes[:_LANES], title=title, x_title="lag [steps]", style="hue-0")

    def _best(self, groups: Sequence[Group]) -> tuple[Group, ...]:
        if len(groups) <= _LANES:
            return tuple(groups)
        kept = set(map(id, sorted(groups, key=_rank)[:_LANES]))
        return tuple(group for group in groups if id(group) in kept)


def drawing(groups: Sequence[Group]) -> Drawing:
    """Choose panels, colours and patterns.

    A panel of too many groups keeps the best learning rate of each method, then the methods with
    the highest final reward.
    """
    by_panel: dict[str, list[Group]] = {}
    for group in groups:
        if any(len(run.steps) for run in group.runs):
            by_panel.setdefault(_panel_title(group, groups), []).append(group)
    panels = {title: _thinned(own) for title, own in by_panel.items()}
    shown = [group for own in panels.values() for group in own]
    methods = dict.fromkeys(group.method for group in sorted(shown, key=_rank))
    rates = dict.fromkeys(group.learning_rate for group in sorted(shown, key=_rate))
    return Drawing(
        panels=panels,
        hues={method: min(at, HUES) for at, method in enumerate(methods)},
        dashes={rate: min(at, len(DASHES) - 1) for at, rate in enumerate(rates)},
        groups=tuple(groups),
        left_out=sum(map(len, by_panel.values())) - len(shown),
    )


def _thinned(groups: Sequence[Group]) -> tuple[Group, ...]:
    if len(groups) <= _LINES:
        return tuple(groups)
    best: dict[str, Group] = {}
    for group in sorted(groups, key=_rank):
        best.setdefault(group.method, group)
    kept = set(map(id, list(best.values())[:_LINES]))
    return tuple(group for group in groups if id(group) in kept)


def _rank(group: Group) -> float:
    final = group.over_runs("final")
    return -final.mean if final is not None else float("inf")


def _rate(group: Group) -> float:
    return group.runs[0].number("learning_rate") or 0.0


def _panel_title(group: Group, groups: Sequence[Group]) -> str:
    words = [f"staleness {group.staleness or 'not told'}"]
    words += [
        getattr(group, name) or f"{name} not told"
        for name in ("task", "engine")
        if len({getattr(one, name) for one in groups}) > 1
    ]
    return ", ".join(words)


def _points(found: Curve) -> tuple[tuple[float, float, float, float], ...]:
    columns = (found.steps, found.mean, found.low, found.high)
    return tuple(zip(*(column.tolist() for column in columns), strict=True))
