"""An audit: what breaker, cycles and billed tokens say of a ledger or of logs, after the fact.

Each guard is run over the calls in their order, as if it had been there. Where several keys,
sessions or models are looked at, each has its part of the level, so that it holds for all of them
together.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from weft.core.errors import InputError
from weft.tokens.call import Call
from weft.tokens.classes import TokenClass
from weft.tokens.guards.breaker import TOLERANCE, Baseline, Breaker, Spend, Verdict, learn_baseline
from weft.tokens.guards.cycles import Again, Cycles, CycleVerdict
from weft.tokens.guards.encoders import Encoder
from weft.tokens.guards.signature import ToolCall
from weft.tokens.guards.tokenisation import HONEST, TokenAudit, TokenVerdict
from weft.tokens.guards.transcript import Turn
from weft.tokens.prices import PriceBook, cost

__all__ = [
    "KEYS",
    "AuditReport",
    "Finding",
    "Looked",
    "audit_bills",
    "audit_burn",
    "audit_cycles",
    "moment",
    "spent_on",
]

KEYS = ("all", "agent", "payer", "session", "model")
"""What money may be watched by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that a guard would have stopped.

    Attributes:
        guard: "burn rate", "tool cycle" or "tokens billed".
        where: which key, session or model.
        said: what happened, in a sentence.
        evidence, needed: how much there was at most, and what is enough.
        at: when it was enough [s since 1970].
        after: spent from then on, until it ended or the log did.
        unit: of `after`: "usd" or "tokens".
        facts: further numbers.
    """

    guard: str
    where: str
    said: str
    evidence: float
    needed: float
    at: float
    after: float
    unit: str
    facts: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What one guard looked at.

    Attributes:
        guard: which.
        level: chance that any of its findings is a false alarm.
        looked: at how many keys, sessions or models.
        what: they are.
        most: of the evidence, and where it was; None where nothing was looked at.
        skipped: how many were not, by why.
        findings: dearest first.
    """

    guard: str
    level: float
    looked: int
    what: str
    most: tuple[float, str] | None
    skipped: Mapping[str, int]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What was found.

    Attributes:
        source: the ledger, or the logs.
        calls: in it.
        unit: in which spending is counted.
        guards: what each looked at and found.
    """

    source: str
    calls: int
    unit: str
    guards: tuple[Looked, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Of all guards."""
        return tuple(own for guard in self.guards for own in guard.findings)


def spent_on(calls: Iterable[Call], book: PriceBook | None) -> dict[tuple[str, str], float]:
    """What each call cost at least; tokens where there are no prices.

    Args:
        calls: with their usage.
        book: prices; None for tokens.
    """
    if book is None:
        return {
            (call.source, call.id): float(call.usage.input.low + call.usage.output.low)
            for call in calls
        }
    return {
        (call.source, call.id): float(
            cost(call.usage, book.rate(call.provider, call.model, call.at, tier=call.tier)).low
        )
        for call in calls
    }


def audit_burn(
    calls: Sequence[Call],
    spent: Mapping[tuple[str, str], float],
    *,
    unit: str,
    by: str = "all",
    before: Sequence[Call] = (),
    share: float = 0.5,
    level: float = 0.01,
    tolerance: float = TOLERANCE,
) -> Looked:
    """Run a breaker for each key.

    Args:
        calls: in order.
        spent: by source and id of calls, those of `before` included.
        unit: of what was spent.
        by: one of KEYS.
        before: calls of a time when all was well; without any, the first of `calls` are.
        share: of `calls` that are the baseline then.
        level: chance of any false alarm.
        tolerance: see `learn_baseline`.

    Raises:
        InputError: there is no such key, or the share is none.
    """
    if by not in KEYS or not 0.0 < share < 1.0:
        raise InputError(
            need=f"one of {', '.join(KEYS)}, and a share between 0 and 1",
            got=f"{by}, {share}",
            hint="--by agent",
        )
    groups = _grouped(calls, by)
    known = _grouped(before, by)
    skipped: Counter[str] = Counter()
    findings: list[Finding] = []
    most: tuple[float, str] | None = None
    for name, own in groups.items():
        cut = 0 if before else int(share * len(own))
        first = _spends(known.get(name, []) if before else own[:cut], spent)
        try:
            base = learn_baseline(first, level=level / len(groups), tolerance=tolerance)
        except InputError:
            skipped["too few calls to learn a baseline from"] += 1
            continue
        found, evidence = _burnt(name, base, _spends(own[cut:], spent), unit)
        findings += found
        most = max(most or (0.0, ""), (evidence / base.needed, name))
    looked = len(groups) - skipped.total()
    return _looked("burn rate", level, looked, f"by {by}", most, skipped, findings)


def _grouped(calls: Iterable[Call], by: str) -> dict[str, list[Call]]:
    groups: defaultdict[str, list[Call]] = defaultdict(list)
    for call in calls:
        groups["all" if by == "all" else str(getattr(call, by)) or "(nobody)"].append(call)
    return dict(groups)


def _spends(calls: Sequence[Call], spent: Mapping[tuple[str, str], float]) -> list[Spend]:
    """Calls as they end, which is when they are paid."""
    found = [
        Spend(
            at=call.at + (call.seconds or 0.0),
            usd=spent[call.source, call.id],
            progress=1.0 if call.passed else 0.0,
        )
        for call in calls
    ]
    return sorted(found, key=lambda own: own.at)


def _burnt(
    name: str, base: Baseline, spends: Sequence[Spend], unit: str
) -> tuple[list[Finding], float]:
    breaker, most = Breaker(base), 0.0
    tripped: Verdict | None = None
    last = breaker.verdict()
    calm = (spends[0].at, 0.0) if spends else (0.0, 0.0)
    for spend in spends:
        last = breaker.observe(spend)
        most = max(most, last.evidence)
        if tripped is None:
            tripped = last if last.tripped else None
            # Evidence of at most 1 is none: what led to the trip began after it.
            calm = (spend.at, last.usd) if last.evidence <= 1.0 else calm
    if tripped is None or tripped.at is None:
        return [], most
    speed = (tripped.usd - calm[1]) / max(tripped.at - calm[0], 1e-3)
    less = "" if base.usd_per_progress is None else ", and bought less progress"
    said = (
        f"{_amount(base.usd_per_s * 3600.0, unit)} an hour, as learnt over"
        f" {_minutes(base.seconds)}, became {_amount(speed * 3600.0, unit)}{less}"
    )
    finding = Finding(
        guard="burn rate",
        where=name,
        said=said,
        evidence=most,
        needed=base.needed,
        at=tripped.at,
        after=last.usd_after,
        unit=unit,
        facts={
            "since": calm[0],
            "before": tripped.usd,
            "times_as_fast": speed / base.usd_per_s,
            "learnt_s": base.seconds,
        },
    )
    return [finding], most


def _minutes(seconds: float) -> str:
    for size, name in ((86_400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2.0 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"


def audit_cycles(
    turns: Sequence[Turn],
    spent: Mapping[tuple[str, str], float],
    *,
    unit: str,
    again: Again | None = None,
    level: float = 0.01,
) -> Looked:
    """Look for cycles of tools in each session.

    Args:
        turns: in order.
        spent: by source and id of calls.
        unit: of what was spent.
        again: chances for honest work.
        level: chance of any false alarm.
    """
    sessions: defaultdict[str, list[Turn]] = defaultdict(list)
    for turn in turns:
        if turn.tools:
            sessions[turn.session or "(no session)"].append(turn)
    findings: list[Finding] = []
    most: tuple[float, str] | None = None
    for name, own in sessions.items():
        found, evidence = _cycled(
            name, own, spent, unit, Cycles(again, level=level / len(sessions))
        )
        findings += found
        most = max(most or (0.0, ""), (evidence, name))
    skipped = Counter[str]()
    if not sessions:
        skipped["replies without tools"] = len(turns)
    return _looked("tool cycle", level, len(sessions), "sessions", most, skipped, findings)


def _cycled(
    name: str,
    turns: Iterable[Turn],
    spent: Mapping[tuple[str, str], float],
    unit: str,
    watch: Cycles,
) -> tuple[list[Finding], float]:
    """Cycles of a session, and the most evidence as a share of what is needed."""
    findings: list[Finding] = []
    most = 0.0
    going: tuple[float, float, CycleVerdict] | None = None
    for at, step in _steps(turns, spent):
        verdict = watch.observe(step)
        most = max(most, verdict.evidence / verdict.needed)
        if verdict.tripped:
            since, wasted, _ = going or (at, -step.usd, verdict)
            going = since, wasted + step.usd, verdict
        elif going is not None:
            findings.append(_cycle(name, *going, unit))
            going = None
    if going is not None:
        findings.append(_cycle(name, *going, unit))
    return findings, most


def _steps(
    turns: Iterable[Turn], spent: Mapping[tuple[str, str], float]
) -> Iterator[tuple[float, ToolCall]]:
    """Calls of tools, with their shares of what the reply cost that asked for them."""
    for turn in turns:
        call = turn.call
        usd = 0.0 if call is None else spent.get((call.source, call.id), 0.0) / len(turn.tools)
        passed = call is not None and bool(call.passed)
        for place, tool in enumerate(turn.tools):
            yield turn.at, replace(tool, usd=usd, progress=float(passed and place == 0))


def _cycle(name: str, at: float, wasted: float, last: CycleVerdict, unit: str) -> Finding:
    rounds = " > ".join(last.tools)
    return Finding(
        guard="tool cycle",
        where=name,
        said=f"{rounds}, {last.repeats} times with the same arguments and results",
        evidence=last.evidence,
        needed=last.needed,
        at=at,
        after=wasted,
        unit=unit,
        facts={"period": last.period, "repeats": last.repeats, "spent_on_repeats": last.usd},
    )


def audit_bills(
    turns: Sequence[Turn],
    spent: Mapping[tuple[str, str], float],
    encoder: Encoder,
    *,
    unit: str,
    models: Callable[[str], bool] = lambda _: True,
    honest: float = HONEST,
    overhead: int = 0,
    level: float = 0.01,
) -> Looked:
    """Compare what was billed with what texts are encoded to, for each model.

    Replies with tools are left out: how their calls were written in tokens is not known.

    Args:
        turns: in order.
        spent: by source and id of calls.
        encoder: of the models.
        unit: of what was spent.
        models: which of them it is the encoder of.
        honest, overhead: see `TokenAudit`.
        level: chance of any false alarm.
    """
    skipped: Counter[str] = Counter()
    replies: defaultdict[str, list[tuple[Call, str]]] = defaultdict(list)
    for turn in turns:
        if turn.call is None:
            continue
        if not models(turn.call.model):
            skipped["replies of other models"] += 1
        elif turn.text is None or turn.tools:
            skipped["replies with tools, or without text"] += 1
        else:
            replies[turn.call.model or "(no model)"].append((turn.call, turn.text))
    findings: list[Finding] = []
    most: tuple[float, str] | None = None
    for model, own in replies.items():
        watch = TokenAudit(encoder, level=level / len(replies), honest=honest, overhead=overhead)
        at: float | None = None
        for call, text in own:
            paid = spent.get((call.source, call.id), 0.0)
            verdict = watch.observe(text, call.usage[TokenClass.TEXT], paid)
            at = call.at if at is None and verdict.tripped else at
        verdict = watch.verdict()
        most = max(most or (0.0, ""), (verdict.evidence / verdict.needed, model))
        if at is not None:
            findings.append(_bill(model, at, verdict, encoder.name, unit))
    return _looked("tokens billed", level, len(replies), "models", most, skipped, findings)


def _bill(model: str, at: float, verdict: TokenVerdict, encoder: str, unit: str) -> Finding:
    low, high = verdict.ratio
    until = "" if high == low else f" to {high:.3f}"
    said = (
        f"{low:.3f}{until} tokens billed for each that {encoder} needs, over {verdict.calls}"
        f" replies; at least {verdict.overcharge:.1%} too many"
    )
    return Finding(
        guard="tokens billed",
        where=model,
        said=said,
        evidence=verdict.evidence,
        needed=verdict.needed,
        at=at,
        after=verdict.usd_after,
        unit=unit,
        facts={"ratio": low, "overcharge": verdict.overcharge, "call": verdict.at},
    )


def _looked(
    guard: str,
    level: float,
    looked: int,
    what: str,
    most: tuple[float, str] | None,
    skipped: Mapping[str, int],
    findings: Iterable[Finding],
) -> Looked:
    return Looked(
        guard=guard,
        level=level,
        looked=looked,
        what=what,
        most=most,
        skipped=dict(skipped),
        findings=tuple(sorted(findings, key=lambda own: -own.after)),
    )


def _amount(amount: float, unit: str) -> str:
    return f"{amount:.4g} {unit}"


def moment(at: float) -> str:
    """A time for people."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
