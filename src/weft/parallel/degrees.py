"""How many devices each classical scheme of parallelism gets, as one value.

    data parallel       the batch is cut; gradients are summed
    ZeRO 1, 2, 3        data parallel, and the optimizer state is cut as well, the gradients as
                        soon as they are summed, and the parameters, which are gathered for use
    expert parallel     the experts of a mixture are shared out over data-parallel devices, and
                        tokens travel to the experts that they chose
    context parallel    activations are cut along the sequence everywhere; keys and values are
                        gathered
    tensor parallel     weights of matrix products are cut by columns, then by rows, so that one
                        all-reduce joins each pair
    sequence parallel   between such pairs, activations are cut along the sequence
    wide layers         tensor parallel where that is cheaper than to synchronise gradients, and
                        data parallel elsewhere, over the same devices (`weft.parallel.wide`)

Sources: PyTorch DDP (Li et al., arXiv 2006.15704), ZeRO (Rajbhandari et al., arXiv 1910.02054),
GShard (Lepikhin et al., arXiv 2006.16668) and DeepSpeed-MoE (Rajbhandari et al., arXiv
2201.05596), Llama 3 (arXiv 2407.21783, section 3.3.2), Megatron-LM (Shoeybi et al., arXiv
1909.08053; Korthikanti et al., arXiv 2205.05198).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from weft.core.errors import InputError
from weft.parallel.placement import Mesh

__all__ = ["RECOMPUTED", "DegreeNames", "Degrees"]

RECOMPUTED = ("", "cheap", "full")
"""What may run again in the backward pass: nothing, all but products, all of each layer."""


class DegreeNames(TypedDict, total=False):
    """`Degrees` as keywords; `fsdp` is the other spelling of `zero=3`."""

    dp: int
    tp: int
    sp: bool
    cp: int
    ep: int
    zero: int
    fsdp: bool
    recompute: str
    shares: tuple[int, ...]
    factors: bool
    wide: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Degrees:
    """Degrees of the classical schemes: devices = dp * cp * tp.

    Attributes:
        dp: ways the batch is cut.
        tp: ways weights are cut.
        sp: activations between pairs of cut products are cut along the sequence, `tp` ways.
        cp: ways the sequence is cut.
        ep: ways the experts are shared out; a divisor of `dp`.
        zero: 0 cuts nothing but the batch; 1 cuts the optimizer state over the data and context
            parallel devices, and with it the float32 masters of weights that are cast for use; 2
            cuts gradients too, which makes the same plan, since a gradient is reduced to its
            parts as soon as it is made (over the micro-batches of a pipeline, both add up whole
            ones); 3 cuts parameters too.
        recompute: one of `RECOMPUTED`.
        shares: what each of the `dp` devices has of the batch, in proportion; () for equal parts.
        factors: gradients of linear layers are sent as their two factors where that is cheaper.
        wide: only wide layers are cut `tp` ways; for others, the batch is cut over these devices
            too, as are the states of ZeRO, over them alone where `shares` are given. Along an axis
            that does not divide the rows of the batch nothing but weights is cut.

    Example:
        >>> Degrees(dp=16, tp=4, zero=1).name
        'ZeRO-1 16 x TP 4'
        >>> Degrees.named(dp=8, fsdp=True) == Degrees(dp=8, zero=3)
        True
    """

    dp: int = 1
    tp: int = 1
    sp: bool = False
    cp: int = 1
    ep: int = 1
    zero: int = 0
    recompute: str = ""
    shares: tuple[int, ...] = ()
    factors: bool = False
    wide: bool = False

    def __post_init__(self) -> None:
        if self.factors and (self.num_devices != self.dp or self.zero or self.ep > 1):
            raise InputError(
                need="data parallel alone to send factors of gradients",
                got=self.name,
                hint="leave out the other degrees; the exact planner sends factors beside any",
            )
        if self.wide and (self.tp == 1 or self.sp or self.cp > 1 or self.ep > 1 or self.recompute):
            raise InputError(
                need="a tensor degree above 1 for wide layers, beside data parallel and ZeRO alone",
                got=self.name,
                hint="for example --dp 4 --tp 4 --wide",
            )
        whole = self.ep == 1 and (self.wide or not self.zero)
        if self.shares and (len(self.shares) != self.dp or not whole):
            raise InputError(
                need="a share for each data-parallel device, without ZeRO and expert parallel",
                got=f"{len(self.shares)} shares for {self.dp}, ZeRO {self.zero}, expert {self.ep}",
                hint="state is whole along an axis that cuts unevenly",
            )
        if min(self.dp, self.tp, self.cp, self.ep) < 1 or (self.sp and self.tp == 1):
            raise InputError(
                need="degrees of at least 1, and a tensor degree above 1 for sequence parallel",
                got=f"data {self.dp}, tensor {self.tp}, context {self.cp}, expert {self.ep}, "
                f"sequence {self.sp}",
                hint="for example --dp 16 --tp 4 --sp",
            )
        if self.dp % self.ep:
            raise InputError(
                need="an expert degree that divides the data-parallel degree",
                got=f"expert {self.ep}, data {self.dp}",
                hint="experts are shared out over data-parallel devices: --dp 16 --ep 8",
            )
        if self.zero not in (0, 1, 2, 3):
            raise InputError(
                need="a ZeRO stage from 0 to 3", got=str(self.zero), hint="--fsdp is stage 3"
            )
        if self.recompute not in RECOMPUTED:
            raise InputError(
                need=f"one of {', '.join(map(repr, RECOMPUTED))} to recompute",
                got=repr(self.recompute),
                hint="full recomputation keeps the least",
            )

    @classmethod
    def named(
        cls,
        *,
        dp: int = 1,
        tp: int = 1,
        sp: bool = False,
        cp: int = 1,
        ep: int = 1,
        zero: int = 0,
        fsdp: bool = False,
        recompute: str = "",
        shares: tuple[int, ...] = (),
        factors: bool = False,
        wide: bool = False,
    ) -> Degrees:
        """The degrees of these keywords.

        Raises:
            InputError: they do not go together.
        """
        if fsdp and zero not in (0, 3):
            raise InputError(
                need="one ZeRO stage",
                got=f"fsdp, which is stage 3, and zero {zero}",
                hint="leave one of the two out",
            )
        stage = 3 if fsdp else zero
        return cls(
            dp=dp,
            tp=tp,
            sp=sp,
            cp=cp,
            ep=ep,
            zero=stage,
            recompute=recompute,
            shares=shares,
            factors=factors,
            wide=wide,
        )

    @property
    def num_devices(self) -> int:
        """Devices that the degrees need."""
        return self.dp * self.cp * self.tp

    @property
    def name(self) -> str:
        """What engineers call it."""
        schemes = ("DDP", "ZeRO-1", "ZeRO-2", "FSDP")
        spread = self.dp > 1 or (self.zero and (self.cp > 1 or self.wide))
        parts = (
            f"{schemes[self.zero]} {self.dp}{self._proportions}" if spread else "",
            f"EP {self.ep}" if self.ep > 1 else "",
            f"CP {self.cp}" if self.cp > 1 else "",
            f"TP {self.tp}{self._somewhere}" if self.tp > 1 else "",
        )
        named = " x ".join(part for part in parts if part) or "one device"
        return f"{named}, factors" if self.factors else named

    @property
    def _somewhere(self) -> str:
        return " + SP" if self.sp else " of wide layers" if self.wide else ""

    @property
    def _proportions(self) -> str:
        if not self.shares:
            return ""
        few = len(self.shares) <= MOST_NAMED
        return f" ({':'.join(map(str, self.shares))})" if few else " (in proportion)"

    @property
    def data_units(self) -> int:
        """What the rows of the batch have to be a multiple of.

        Beside wide layers they are shared out evenly along those axes that divide them.
        """
        if self.shares:
            return sum(self.shares)
        return 1 if self.wide else self.dp

    @property
    def mesh(self) -> Mesh:
        """The grid: data outside, then experts, context and tensor; axes of one are left out."""
        axes = (self.dp // self.ep, self.ep, self.cp, self.tp)
        shape = tuple(n for n in axes if n > 1) or (1,)
        return Mesh.uneven(shape, self.shares) if self.shares else Mesh(shape)


MOST_NAMED = 8
"""Shares that a name lists; more are called proportions."""
