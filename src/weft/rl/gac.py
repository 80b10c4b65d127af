"""GAC: gradient alignment control around any optimizer.

    opt = weft.rl.GAC(torch.optim.AdamW(model.parameters(), lr=1e-6))
    loss.backward(); clip_grad_norm_(model.parameters(), 1.0); opt.step()

Each step compares the gradient with a reference of recent ones; where the two line up, the part
that repeats is taken out in place, and the optimizer gets the rest. One pass over gradients and
references measures, one exchange of a few numbers makes processes agree, one pass changes. Large
models on CPUs have a compiled kernel for each pass, which takes what its memory traffic takes.

Clip before. Clipping to a norm afterwards would scale up what was left after a projection in
proportion to what was just taken out of it, on every step where the limit binds.

Gradients that are not finite are passed on as they are: the optimizer inside does what it would
have done without GAC, and all processes forget their references, so the next step is a first one.

Source: after Xu et al. 2026, arXiv 2603.01501 (abstract). The method's text was not to be had. The
reference, the threshold of 0 and the absence of skips are our own, and did best on a small task.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from weft.core.errors import InputError, RunError
from weft.rl.alignment import (
    Decision,
    Decisions,
    Mode,
    Regime,
    Thresholds,
    decide_all,
    summarise,
)
from weft.rl.moments import Measured, Moments, measure, symmetric
from weft.rl.native import Table, kernels, tabulate
from weft.rl.plain import decide_plainly, summarise_plainly
from weft.rl.reference import Ema, History, Reference
from weft.rl.shards import (
    Batch,
    Per,
    Shard,
    batches,
    collect,
    count_groups,
    find_device,
    find_group,
)
from weft.rl.skips import Skips
from weft.rl.wrapper import Wrapper

__all__ = ["GAC", "Alignment"]

LARGE = 1 << 16
"""Elements of gradients on CPUs from which kernels are compiled.
Measured: 2 cores of an AMD EPYC, November 2026. Compiling takes 1.5 s, once on a machine; a step of
10^5 elements on one thread is shorter by 0.3 ms with kernels, one of 3 * 10^6 by 6 ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """What a step of GAC did.

    Attributes:
        step: which, from 1.
        regime: what was done; of several groups, the highest.
        cosine_raw: of the gradient with its reference.
        cosine_applied: of what was applied with it.
        norm_raw: of the gradient.
        norm_applied: of what was applied.
        staleness: as it was set for the step; None if it was not.
        groups: what was done with each group.
    """

    step: int
    regime: Regime
    cosine_raw: float
    cosine_applied: float
    norm_raw: float
    norm_applied: float
    staleness: float | None
    groups: tuple[Decision, ...]

    def __str__(self) -> str:
        age = "" if self.staleness is None else f", samples {self.staleness:g} steps old"
        return (
            f"step {self.step}: {self.regime.name.lower()},"
            f" cosine {self.cosine_raw:.2f} -> {self.cosine_applied:.2f},"
            f" norm {self.norm_raw:.3g} -> {self.norm_applied:.3g}{age}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnDevice:
    """The same, before anyone has looked."""

    whole: Tensor
    decisions: Decisions
    staleness: float | None


class GAC(Wrapper):
    """Takes out of each gradient what repeats those before it.

    Args:
        optimizer: any of torch's kind; it gets the changed gradients.
        cosine_low: the cosine with the reference above which gradients are changed.
        cosine_high: the one above which a step is skipped; None for never, which is advised.
        mode: "orthogonal", "cap", or "shrink" as a control; see `weft.rl.alignment.Mode`.
        reference: what gradients are compared with; `Ema(decay=0.5)` if left out.
        per: what gets a decision of its own: "model", "group" (each parameter group) or
            "parameter".
        thresholds: in place of `cosine_low` and `cosine_high`, with bounds on skips.
        group: processes that hold the model. Found from the mesh of its parameters if left out;
            tensors without a mesh are taken to be whole, and no process asks another.
        copies: how many processes of the group hold the same part of a given parameter, where
            that cannot be seen from its placements (plain tensors that are split by hand).
        synchronise: False never to wait for the device; decisions are then made on it.
        compiled: whether gradients on CPUs are measured and changed by compiled kernels: True or
            False, or None to let the size of the model decide. Where they cannot be compiled, a
            warning says why, and operators of torch do the same.

    Attributes:
        optimizer: the one inside.
        staleness: how many steps old the samples of the next step are, on average. Set by
            whoever knows; gradients are changed only where it is above 0, or None, on any process.
            References are kept up to date in any case.

    Raises:
        InputError: an argument out of range, or an optimizer that cannot be wrapped.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
        >>> gac = GAC(torch.optim.SGD([weight], lr=1.0))
        >>> for gradient in ([1.0, 0.0], [1.0, 1.0]):
        ...     weight.grad = torch.tensor(gradient)
        ...     gac.step()
        >>> gac.last.regime.name, weight.grad.tolist()
        ('PROJECT', [0.0, 1.0])
    """

    key = "gac"

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        cosine_low: float = 0.0,
        cosine_high: float | None = None,
        *,
        mode: Mode | str = Mode.ORTHOGONAL,
        reference: Reference | None = None,
        per: Per = "model",
        thresholds: Thresholds | None = None,
        group: dist.ProcessGroup | None = None,
        copies: Callable[[Tensor], int] | None = None,
        synchronise: bool = True,
        compiled: bool | None = None,
    ) -> None:
        super().__init__(optimizer)
        self.thresholds = _thresholds(cosine_low, cosine_high, thresholds)
        self.mode = _mode(mode)
        self.per: Per = per
        self.synchronise = synchronise
        self.compiled = compiled
        self._staleness: float | None = None
        self.history = History(_reference(reference))
        self._check()
        self._group = group
        self._copies = copies
        self._find_group()
        self._skips = Skips(self.thresholds)
        self._steps = 0
        self._counts: list[int] | Tensor = [0] * len(Regime)
        self._done: Alignment | _OnDevice | None = None

    @property
    def staleness(self) -> float | None:
        """How old the samples of the next step are, in steps; None where nobody knows."""
        return self._staleness

    @staleness.setter
    def staleness(self, value: float | None) -> None:
        if value is not None and not (isinstance(value, (int, float)) and 0.0 <= value < inf):
            raise InputError(
                need="a staleness in steps, at least 0, or None where it is unknown",
                got=repr(value),
                hint="the mean age of the step's samples: 0 for new ones only",
            )
        self._staleness = value

    @property
    def last(self) -> Alignment | None:
        """What the last step did; None before the first. Reading it waits for the device."""
        if isinstance(self._done, _OnDevice):
            regime, *numbers = self._done.whole.tolist()
            decisions, staleness = self._done.decisions.read(), self._done.staleness
            self._done = _alignment(self._steps, (regime, *numbers), decisions, staleness)
        return self._done

    @property
    def counts(self) -> dict[Regime, int]:
        """How many steps ended in each regime. Reading it waits for the device."""
        return dict(zip(Regime, self._count(), strict=True))

    def _count(self) -> list[int]:
        return self._counts.tolist() if isinstance(self._counts, Tensor) else self._counts

    def before(self) -> bool:
        """Measure, decide, change gradients in place, and keep the reference up to date."""
        group = self._find_group()
        size = 1 if group is None else dist.get_world_size(group)
        shards = collect(self.param_groups, per=self.per, size=size, copies=self._copies)
        has_history = bool(self.history) and self.history.fits(shards)
        if not has_history:
            self.history.begin(shards)
        table, rest = self._split(shards)
        measured = measure(
            rest,
            table=table,
            count=self.history.reference.size,
            groups=count_groups(self.param_groups, self.per),
            has_history=has_history,
            is_stale=self.staleness is None or self.staleness > 0,
            group=group,
            device=find_device(self.parameters()),
        )
        self._steps += 1
        if not self.synchronise:
            self._follow_on_device(table, rest, measured.on_device())
            return True
        found, first = self._decide(measured)
        if any(decision.regime is Regime.INVALID for decision in found):
            self.history.clear()
            return True
        if has_history and first:
            # Only another process has none; then those of this one do not count, either.
            self.history.begin(shards)
            table, rest = self._split(shards)
        return self._follow(table, rest, found)

    def _find_group(self) -> dist.ProcessGroup | None:
        # Each time, since trainers shard models and put new parameters into their optimizers.
        return find_group(self.parameters()) if self._group is None else self._group

    def _split(self, shards: list[Shard]) -> tuple[Table | None, list[Batch]]:
        """What compiled kernels take, and the rest in batches for operators."""
        table = self._tabulate(shards)
        rest = shards if table is None else table.rest
        return table, list(batches(rest, self.history.of))

    def _tabulate(self, shards: list[Shard]) -> Table | None:
        if self.compiled is False or self.history.reference.weight(0.0) is None:
            return None
        is_large = self.compiled or sum(shard.gradient.numel() for shard in shards) >= LARGE
        table = tabulate(shards, self.history.of) if is_large else None
        if table is None or not table.elements:
            return None
        try:
            kernels()
        except RunError as error:
            self.compiled = False
            warnings.warn(
                "The kernels of GAC were not compiled. Operators of torch do the same in about"
                f" three times the time; compiled=False chooses them without a warning.\n{error}",
                UserWarning,
                stacklevel=7,
            )
            return None
        return table

    def _decide(self, measured: Measured) -> tuple[tuple[Decision, ...], bool]:
        """Decisions on the host, and whether references do not count."""
        read = measured.read()
        if self.history.reference.size == 1:
            found = decide_plainly(
                read.products,
                thresholds=self.thresholds,
                mode=self.mode,
                invalid=read.invalid,
                first=read.first,
                may_act=read.stale,
                may_skip=self._skips.may_skip,
            )
            numbers = summarise_plainly(read.products, found)
        else:
            gram = symmetric(torch.tensor(read.products, dtype=torch.float64))
            decisions = decide_all(
                gram,
                thresholds=self.thresholds,
                mode=self.mode,
                invalid=torch.tensor(read.invalid),
                first=torch.tensor(read.first),
                may_act=read.stale,
                may_skip=self._skips.may_skip,
            )
            found, numbers = decisions.read(), summarise(gram, decisions).tolist()
        self._done = _alignment(self._steps, numbers, found, self.staleness)
        # A checkpoint may have been loaded, or the other way of deciding been chosen, in between.
        self._counts = self._count()
        self._counts[self._done.regime] += 1
        return found, read.first

    def _follow(
        self, table: Table | None, rest: list[Batch], decisions: tuple[Decision, ...]
    ) -> bool:
        """Do what was decided on the host; False if the step is skipped."""
        for batch in rest:
            decision = decisions[batch.group]
            self.history.advance(
                batch,
                factors=decision.factors if decision.regime is Regime.PROJECT else None,
                scale=decision.scale,
                is_first=float(decision.regime is Regime.FIRST),
            )
        if table is not None:
            rows = [
                (d.factors[0], d.scale, self._weight(float(d.regime is Regime.FIRST)), 0.0)
                for d in decisions
            ]
            table.advance(torch.tensor(rows, dtype=torch.float64))
        self.history.turn()
        skipped = any(decision.regime is Regime.SKIP for decision in decisions)
        if self.thresholds.cosine_high is not None:
            self._skips.note(skipped)
        return not skipped

    def _weight(self, is_first: float | Tensor) -> float | Tensor:
        """Of gradients in references that kernels keep up to date."""
        weight = self.history.reference.weight(is_first)
        assert weight is not None, "only such references are put in a table"
        return weight

    def _follow_on_device(self, table: Table | None, rest: list[Batch], moments: Moments) -> None:
        """Decide on the device, and do it without looking."""
        decisions = decide_all(
            moments.gram,
            thresholds=self.thresholds,
            mode=self.mode,
            invalid=moments.invalid,
            first=moments.first,
            may_act=moments.stale,
        )
        whole = summarise(moments.gram, decisions)
        self._done = _OnDevice(whole=whole, decisions=decisions, staleness=self.staleness)
        codes = torch.arange(len(Regime), device=whole.device)
        counts = torch.as_tensor(self._counts, device=whole.device)
        self._counts = counts + (codes == whole[0])
        firsts = (decisions.regime == Regime.FIRST).to(torch.float64)
        for batch in rest:
            device = batch.gradients[0].device  # another one where weights are offloaded
            self.history.advance(
                batch,
                factors=decisions.factors[batch.group].to(device).unbind(),
                scale=decisions.scale[batch.group].to(device),
                is_first=firsts[batch.group].to(device),
                wiped=moments.invalid.to(device),
            )
        if table is not None:
            weights = torch.zeros_like(firsts) + self._weight(firsts)
            wiped = moments.invalid.expand_as(firsts)
            columns = (decisions.factors[:, 0], decisions.scale, weights, wiped)
            table.advance(torch.stack(columns, 1).to("cpu"))
        self.history.turn()

    def kept(self, parameter: Tensor) -> Mapping[str, Tensor]:
        """References of a parameter, sharded as it is."""
        return {
            f"{self.key}_reference_{n}": _placed(found, parameter)
            for n, found in enumerate(self.history.kept(parameter))
        }

    def own_state(self) -> dict[str, Any]:
        """Counters, and what the references are."""
        return {
            "reference": type(self.history.reference).__name__,
            "steps": self._steps,
            "counts": list(self._count()),
            "skips": self._skips.state(),
        }

    def restore(
        self, state: dict[str, Any] | None, kept: Mapping[Tensor, Mapping[str, Tensor]]
    ) -> None:
        """Go on where the checkpoint was written.

        Without references in it, or with those of another kind, the next step is a first one.
        """
        size = self.history.reference.size
        kind = type(self.history.reference).__name__
        self.history.clear()
        self._done = None
        fits = all(len(found) == size for found in kept.values())
        if fits and (state is None or state["reference"] == kind):
            names = [f"{self.key}_reference_{n}" for n in range(size)]
            self.history.restore({p: [found[name] for name in names] for p, found in kept.items()})
        if state is not None:
            self._steps = state["steps"]
            self._counts = list(state["counts"])
            self._skips.load(state["skips"])

    def _check(self) -> None:
        if self.per not in ("model", "group", "parameter"):
            raise InputError(
                need='per="model", "group" or "parameter"',
                got=repr(self.per),
                hint='layers are parameter groups: per="group" with one group a layer',
            )
        if self.mode is Mode.CAP and self.history.reference.size > 1:
            raise InputError(
                need="one reference for the cap",
                got=f"{self.history.reference.size}",
                hint='mode="orthogonal" takes out the span of several',
            )
        if self.thresholds.cosine_high is None:
            return
        if self.per != "model" or not self.synchronise:
            raise InputError(
                need="one decision that the host knows, where steps may be skipped",
                got=f"cosine_high {self.thresholds.cosine_high} with per={self.per!r},"
                f" synchronise={self.synchronise}",
                hint="cosine_high=None: projections need no skips",
            )


def _alignment(
    step: int,
    numbers: Sequence[float],
    groups: tuple[Decision, ...],
    staleness: float | None,
) -> Alignment:
    """From regime, cosines raw and applied, norms raw and applied."""
    regime, cosine_raw, cosine_applied, norm_raw, norm_applied = numbers
    return Alignment(
        step=step,
        regime=Regime(int(regime)),
        cosine_raw=cosine_raw,
        cosine_applied=cosine_applied,
        norm_raw=norm_raw,
        norm_applied=norm_applied,
        staleness=staleness,
        groups=groups,
    )


def _thresholds(low: float, high: float | None, given: Thresholds | None) -> Thresholds:
    if given is None:
        return Thresholds(cosine_low=low, cosine_high=high)
    if (low, high) != (0.0, None):
        raise InputError(
            need="cosines by themselves or within thresholds",
            got=f"cosine_low {low}, cosine_high {high} beside {given}",
            hint="GAC(optimizer, thresholds=Thresholds(cosine_low=..., cosine_high=...))",
        )
    return given


def _reference(given: Reference | None) -> Reference:
    if given is not None and not isinstance(given, Reference):
        raise InputError(
            need="a reference of gradients",
            got=repr(given),
            hint="reference=Ema(decay=0.5), Previous() or Applied(count=4)",
        )
    return Ema() if given is None else given


def _mode(mode: Mode | str) -> Mode:
    try:
        return Mode(mode)
    except ValueError as error:
        raise InputError(
            need=f"a mode: {', '.join(repr(one.value) for one in Mode)}",
            got=repr(mode),
            hint='mode="orthogonal" is the default',
        ) from error


def _placed(found: Tensor, parameter: Tensor) -> Tensor:
    """A reference as a tensor of its parameter's shape: sharded, where that is."""
    if not isinstance(parameter, DTensor):
        return found
    return DTensor.from_local(
        found,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )
