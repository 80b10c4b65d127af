"""What Prometheus is told, in its text format: a few counters, gauges and one histogram.

Names of models come from clients, so the number of series is limited: what is beyond is "other".

Source: Prometheus documentation, exposition formats, text-based format.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from weft.tokens.budgets.records import Standing
from weft.tokens.money import Money
from weft.tokens.usage import Usage

__all__ = ["Metrics"]

MOST_SERIES = 1000
"""Of each counter. Chosen."""
BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
"""Upper ends for the time that the proxy itself takes. Chosen around what it is held to: 2 and 10
milliseconds."""
_HELP = {
    "weft_calls_total": "Calls that ended, by model and how.",
    "weft_refused_total": "Requests that were refused, by the error's code.",
    "weft_tokens_total": "Tokens by model and class, as far as they are known.",
    "weft_input_tokens_total": "Tokens that were read, by model, as far as they are known.",
    "weft_output_tokens_total": "Tokens that were generated, by model, likewise.",
    "weft_spent_total": "What was settled, by node and unit.",
    "weft_overruns_total": "Calls that cost more than there was room for, by node.",
    "weft_disbelieved_total": "Reports of usage that could not be, by model.",
}
_Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Counts for as long as the process lives."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[_Labels, float]] = {name: {} for name in _HELP}
        self._buckets = [0] * (len(BUCKETS_S) + 1)
        self._seconds = 0.0
        self.flying = 0

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Count something."""
        series = self._counts[name]
        key = tuple(labels.items())
        if key not in series and len(series) >= MOST_SERIES:
            key = tuple((label, "other") for label in labels)
        series[key] = series.get(key, 0.0) + amount

    def ended(
        self, node: str, model: str, status: str, usage: Usage, spent: Sequence[Money]
    ) -> None:
        """Count a call that was settled."""
        self.add("weft_calls_total", model=model, status=status)
        for leaf, own in usage.counts.items():
            self.add("weft_tokens_total", own.low, model=model, **{"class": leaf.value})
        self.add("weft_input_tokens_total", usage.input.low, model=model)
        self.add("weft_output_tokens_total", usage.output.low, model=model)
        for own in spent:
            self.add("weft_spent_total", own.nano / 1e9, node=node, unit=own.currency)

    def took(self, seconds: float) -> None:
        """Count the time that the proxy took for one call, without the provider's."""
        self._buckets[bisect_left(BUCKETS_S, seconds)] += 1
        self._seconds += seconds

    def totals(self) -> dict[str, float]:
        """Sums over all series, for the page."""
        names = {"calls": "calls", "refused": "refused", "disbelieved": "disbelieved"}
        return {key: sum(self._counts[f"weft_{own}_total"].values()) for key, own in names.items()}

    def text(self, standings: Iterable[Standing]) -> str:
        """All of it, with where budgets stand."""
        lines: list[str] = []
        for name, series in self._counts.items():
            lines += [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} counter"]
            lines += [f"{name}{_shown(labels)} {value:.15g}" for labels, value in series.items()]
        lines += [
            "# HELP weft_flying Calls that are under way.",
            "# TYPE weft_flying gauge",
            f"weft_flying {self.flying}",
            "# HELP weft_own_seconds Time that the proxy itself took for a call.",
            "# TYPE weft_own_seconds histogram",
        ]
        count = 0
        for end, own in zip((*map(str, BUCKETS_S), "+Inf"), self._buckets, strict=True):
            count += own
            lines.append(f'weft_own_seconds_bucket{{le="{end}"}} {count}')
        lines += [f"weft_own_seconds_sum {self._seconds:.9g}", f"weft_own_seconds_count {count}"]
        return "\n".join([*lines, *_budgets(standings)]) + "\n"


def _budgets(standings: Iterable[Standing]) -> list[str]:
    rows = list(standings)
    lines: list[str] = []
    for place, name in enumerate(("weft_budget_cap", "weft_budget_spent", "weft_budget_held")):
        lines += [f"# HELP {name} By node, unit and window.", f"# TYPE {name} gauge"]
        for own in rows:
            amount = (own.cap.most, own.spent, own.held)[place]
            labels = (
                ("node", own.node),
                ("unit", own.cap.most.currency),
                ("window", str(own.cap.window)),
            )
            lines.append(f"{name}{_shown(labels)} {amount.nano / 1e9:.15g}")
    return lines


def _shown(labels: _Labels) -> str:
    pairs = (f'{name}="{_escaped(value)}"' for name, value in labels)
    text = ",".join(pairs)
    return f"{{{text}}}" if text else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
