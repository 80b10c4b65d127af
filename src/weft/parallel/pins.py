"""Pins: where a tensor has to lie, or in which pipeline stage a module has to run.

In text, as the command line takes them:

    PATH.TENSOR=PLACEMENT     a parameter, buffer, batch entry or optimizer state, by its name
    PATH output=PLACEMENT     what a module returns
    PATH=stage N              all that a module computes

PLACEMENT is S(<dim>), S(<dim>)x<parts> or R. In a path `*` stands for any part between two dots,
or for some letters of one, and `**` for any number of parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from weft.core.errors import InputError
from weft.program.annotation import Wish

__all__ = ["Pin", "matches", "parse_pin", "pin"]


@dataclass(frozen=True, slots=True)
class Pin:
    """A wish for all that a path names; made by `pin` or `parse_pin`.

    Attributes:
        path: of a module, or the name of an input of the program; may hold `*` and `**`.
        wish: what is asked.
        output: the wish is for what the module returns.
    """

    path: str
    wish: Wish
    output: bool = False

    def __post_init__(self) -> None:
        parts = self.path.split(".")
        if not all(parts) or any(c in self.path for c in " =") or (self.output and self.is_stage):
            raise InputError(
                need="a module path such as layers.*.attention",
                got=repr(self.path),
                hint="parts stand between single dots, without spaces and equal signs",
            )

    @property
    def is_stage(self) -> bool:
        """True if it asks for a pipeline stage."""
        return self.wish.stage is not None

    def __str__(self) -> str:
        return f"{self.path}{' output' if self.output else ''}={self.wish}"


def pin(
    module: str,
    tensor: str = "",
    *,
    split: int | None = None,
    ways: int | None = None,
    replicated: bool = False,
    stage: int | None = None,
) -> Pin:
    """Pin a parameter, the output of a module, or a module's pipeline stage.

    A parameter is pinned as it is stored: whoever reads it may still gather it, which a pin of
    the module's output decides. An output is pinned as its readers get it: what makes it computes
    just that part, or summands of it.

    Args:
        module: path such as "layers.3.mlp"; "layers.*.mlp" names that of each layer.
        tensor: name of a parameter or buffer of the module, such as "weight"; the module's
            output if not given. Batch entries are "x" of "batch".
        split: dim that is cut; negative ones count from the last.
        ways: devices that cut it; any number if not given. Other devices may hold copies, or cut
            other dims.
        replicated: every device holds the whole tensor.
        stage: pipeline stage in which all of the module is computed, from 0.

    Raises:
        InputError: no path, or none or several of `split`, `replicated` and `stage`.

    Example:
        >>> print(pin("layers.*.attention.query", "weight", split=0, ways=8))
        layers.*.attention.query.weight=S(0)x8
        >>> print(pin("layers.3.mlp", split=1), pin("encoder", stage=0), sep=", ")
        layers.3.mlp output=S(1), encoder=stage 0
    """
    wish = Wish(split=split, ways=ways, replicated=replicated, stage=stage)
    if stage is not None and tensor:
        raise InputError(
            need="a module, whose operators run in the stage",
            got=f"the tensor {module}.{tensor}",
            hint="leave the tensor out: a parameter lives where it is read",
        )
    path = ".".join(part for part in (module, tensor) if part)
    return Pin(path, wish, output=not tensor and stage is None)


def parse_pin(text: str) -> Pin:
    """The pin that a text of the form above is.

    Raises:
        InputError: it is of another form.

    Example:
        >>> parse_pin("tokens.weight=R") == pin("tokens", "weight", replicated=True)
        True
    """
    what, equals, wish = text.partition("=")
    path, _, rest = what.strip().partition(" ")
    try:
        if not equals or rest.strip() not in ("", "output"):
            raise InputError(
                need="PATH.TENSOR=PLACEMENT, 'PATH output=PLACEMENT' or 'PATH=stage N'",
                got=repr(text),
                hint="for example tokens.weight=R, or 'layers.*.mlp output=S(1)'",
            )
        return Pin(path, Wish.parse(wish), output=bool(rest.strip()))
    except InputError as error:
        raise error.within(f"pin {text!r}") from error.__cause__


def matches(pattern: str, path: str) -> bool:
    """Whether a pattern names a path.

    Example:
        >>> matches("layers.*.mlp", "layers.3.mlp"), matches("layers.*", "layers.3.mlp")
        (True, False)
        >>> matches("**.mlp", "model.layers.3.mlp"), matches("**.mlp", "mlp")
        (True, True)
    """
    return _matches(tuple(pattern.split(".")), tuple(path.split(".")))


def _matches(pattern: tuple[str, ...], path: tuple[str, ...]) -> bool:
    if not pattern:
        return not path
    first, *rest = pattern
    if first == "**":
        return any(_matches(tuple(rest), path[skip:]) for skip in range(len(path) + 1))
    return bool(path) and fnmatchcase(path[0], first) and _matches(tuple(rest), path[1:])
