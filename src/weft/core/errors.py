"""The error tree of weft.

    WeftError
    ├── InputError          an argument, recipe, file or command that cannot be used as given
    │   └── FileError       a plan, machine, record or checkpoint file: missing, corrupt or newer
    ├── CaptureError        a workload that cannot become a program
    ├── VerifyError         a program, plan or lowered program that breaks a law
    ├── RuleError           an operator for which no sharding rule exists
    ├── InfeasibleError     no plan fits the machine
    ├── MismatchError       a plan made for another program, machine or world size
    └── RunError            a rank that failed while a plan ran

Every error has three parts: what was required, what arrived, what to try. Deep code raises
with what it knows; a border adds context once with `WeftError.within`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

__all__ = [
    "CaptureError",
    "FileError",
    "InfeasibleError",
    "InputError",
    "MismatchError",
    "RuleError",
    "RunError",
    "VerifyError",
    "WeftError",
]


@dataclass(kw_only=True, eq=False)
class WeftError(Exception):
    """Base of every error that weft raises on purpose.

    Args:
        need: what was required.
        got: what arrived instead: value, shape, operator, source line.
        hint: what to try.
        where: outer context, filled in by the border that catches and re-raises.

    Example:
        >>> print(InputError(need="a positive batch", got="batch -1", hint="pass --batch 8"))
        this input cannot be used.
          need  a positive batch
          got   batch -1
          try   pass --batch 8
    """

    need: str
    got: str
    hint: str = ""
    where: str = ""

    def headline(self) -> str:
        """The first line: what kind of thing went wrong."""
        return "something went wrong."

    def within(self, where: str) -> Self:
        """Add the border's context, outermost first, and return the same error."""
        self.where = f"{where}: {self.where}" if self.where else where
        return self

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.headline()}" if self.where else self.headline()]
        parts = (("need", self.need), ("got", self.got), ("try", self.hint))
        lines += [
            f"  {label:<5} " + text.replace("\n", "\n        ") for label, text in parts if text
        ]
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, tuple[type[Self], dict[str, object]]]:
        # Exceptions pickle through args, which keyword-only fields leave empty.
        return (_rebuild, (type(self), dict(self.__dict__)))


def _rebuild(kind: type[WeftError], fields: dict[str, object]) -> WeftError:
    error = kind.__new__(kind)
    error.__dict__.update(fields)
    return error


class InputError(WeftError):
    """An argument, recipe or command that cannot be used as given."""

    def headline(self) -> str:
        return "this input cannot be used."


class FileError(InputError):
    """A file that is missing, corrupt, or written by a newer weft."""

    def headline(self) -> str:
        return "this file cannot be used."


class CaptureError(WeftError):
    """A workload that cannot become a program."""

    def headline(self) -> str:
        return "this workload cannot be captured."


class VerifyError(WeftError):
    """A program, plan or lowered program that breaks a law."""

    def headline(self) -> str:
        return "this is not a legal program or plan."


@dataclass(kw_only=True, eq=False)
class RuleError(WeftError):
    """An operator for which no sharding rule exists.

    Args:
        operator: name of the operator, as it stands in the program.
    """

    operator: str = ""

    def headline(self) -> str:
        return f"no sharding rule covers {self.operator or 'this operator'}."


@dataclass(kw_only=True, eq=False)
class InfeasibleError(WeftError):
    """No plan fits the machine.

    Args:
        constraint: the tightest constraint, in words.
        options: what would fit, best first; they are the hint if no other is given.
    """

    constraint: str = ""
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.hint = self.hint or ", or ".join(self.options)

    def headline(self) -> str:
        return "no plan fits."


class MismatchError(WeftError):
    """A plan made for another program, machine or world size."""

    def headline(self) -> str:
        return "this plan was made for something else."


@dataclass(kw_only=True, eq=False)
class RunError(WeftError):
    """A rank that failed while a plan ran.

    Args:
        rank: the rank that failed; -1 where unknown.
        step: the step it failed in; -1 where unknown.
    """

    rank: int = -1
    step: int = -1

    def headline(self) -> str:
        place = f" on rank {self.rank}" if self.rank >= 0 else ""
        moment = f" in step {self.step}" if self.step >= 0 else ""
        return f"the run failed{place}{moment}."
