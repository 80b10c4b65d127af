"""What a pin asks for, and the pins that a model's own code puts on its tensors.

    S(1)       tensor dim 1 is cut; S(-1) is the last dim
    S(0)x8     dim 0 is cut into 8 parts
    R          every device holds the whole tensor
    stage 2    it is computed in pipeline stage 2

Knows the form only: what can be had is for planners to say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from weft.core.errors import InputError

__all__ = ["Annotation", "Wish"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A placement or a pipeline stage: exactly one of `split`, `replicated` and `stage`.

    Attributes:
        split: tensor dim that is cut; negative ones count from the last.
        ways: parts that it is cut into; any number if not given.
        replicated: every device holds the whole tensor.
        stage: pipeline stage, from 0.

    Raises:
        InputError: none or several of them, or a number out of range.

    Example:
        >>> str(Wish(split=0, ways=8)), Wish(stage=1).arguments
        ('S(0)x8', 'stage=1')
    """

    split: int | None = None
    ways: int | None = None
    replicated: bool = False
    stage: int | None = None

    def __post_init__(self) -> None:
        given = (self.split is not None, self.replicated, self.stage is not None)
        numbers = [n for n in (self.split, self.ways, self.stage) if n is not None]
        if (
            given.count(True) != 1
            or any(type(number) is not int for number in numbers)
            or (self.ways is not None and (self.split is None or self.ways < 2))
            or (self.stage is not None and self.stage < 0)
        ):
            raise InputError(
                need="one of split=<dim>, with ways=<2 or more> or without, replicated=True and "
                "stage=<0 or more>",
                got=self.arguments or "nothing",
                hint="a tensor that is cut along two dims has two pins",
            )

    @property
    def arguments(self) -> str:
        """As a call of `weft.pin` or `weft.pinned` spells it."""
        named = (("split", self.split), ("ways", self.ways), ("stage", self.stage))
        words = [f"{name}={number}" for name, number in named if number is not None]
        return ", ".join([*words, "replicated=True"] if self.replicated else words)

    def dim(self, rank: int) -> int | None:
        """The dim that is cut of a tensor with `rank` dims; None if it does not have it."""
        if self.split is None or not -rank <= self.split < rank:
            return None
        return self.split % rank

    def __str__(self) -> str:
        if self.stage is not None:
            return f"stage {self.stage}"
        ways = "" if self.ways is None else f"x{self.ways}"
        return "R" if self.replicated else f"S({self.split}){ways}"

    @classmethod
    def parse(cls, text: str) -> Wish:
        """Inverse of `str`.

        Raises:
            InputError: the text is of another form.

        Example:
            >>> Wish.parse("S(-1)").arguments
            'split=-1'
        """
        found = _FORM.fullmatch(text.strip())
        if found is None:
            raise InputError(
                need="S(<dim>), S(<dim>)x<parts>, R or stage <number>",
                got=repr(text),
                hint="for example S(0)x8: dim 0 in 8 parts",
            )
        split, ways, whole, stage = found.groups()
        return cls(
            split=None if split is None else int(split),
            ways=None if ways is None else int(ways),
            replicated=whole is not None,
            stage=None if stage is None else int(stage),
        )


_FORM = re.compile(r"S\((-?\d{1,9})\)(?:x(\d{1,9}))?|(R)|stage (\d{1,9})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Annotation:
    """A wish that the model's own code has, and the line that says so.

    Example:
        >>> str(Annotation(Wish(split=1), "model.py:12"))
        'S(1) at model.py:12'
        >>> Annotation.parse("R") == Annotation(Wish(replicated=True))
        True
    """

    wish: Wish
    source: str = ""

    @property
    def is_stage(self) -> bool:
        """True if it says in which stage an operator runs, not where its result lies."""
        return self.wish.stage is not None

    def __str__(self) -> str:
        return f"{self.wish} at {self.source}" if self.source else str(self.wish)

    @classmethod
    def parse(cls, text: str) -> Annotation:
        """Inverse of `str`.

        Raises:
            InputError: the text is of another form.
        """
        wish, _, source = text.partition(" at ")
        return cls(Wish.parse(wish), source)
