"""The commands, in the order in which the help lists them."""

from __future__ import annotations

from weft.cli.command import Command
from weft.cli.commands import (
    bench,
    capture,
    demo,
    denoise,
    fuse,
    machine,
    plan,
    rl,
    run,
    score,
    show,
    tokens,
)

__all__ = ["COMMANDS"]

COMMANDS: tuple[Command, ...] = (
    demo.COMMAND,
    machine.COMMAND,
    capture.COMMAND,
    plan.COMMAND,
    score.COMMAND,
    run.COMMAND,
    show.COMMAND,
    fuse.COMMAND,
    denoise.COMMAND,
    rl.COMMAND,
    tokens.COMMAND,
    bench.COMMAND,
)
