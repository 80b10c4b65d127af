"""`weft rl`: train a policy on samples of a bounded age, and compare runs."""

from __future__ import annotations

import argparse
import math
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from weft.cli.command import Command
from weft.cli.commands.options import add_action, add_recipe, writable_file
from weft.cli.console import Console
from weft.core.errors import FileError, InputError
from weft.workflow.recipe import split_recipe
from weft.workflow.train_rl import CORRECTIONS, ENGINES, ORDERS, TrainSettings

if TYPE_CHECKING:
    from weft.workflow.train_rl import Summary

__all__ = ["COMMAND"]

_LINES = 20
"""Lines that a run prints about its steps where no bar is shown."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    train = add_action(
        actions.add_parser, "train", "train a recipe's policy; Ctrl-C stops in order"
    )
    add_recipe(train)
    _add_method(train)
    _add_engine(train)
    train.set_defaults(act=_train)
    compare = add_action(actions.add_parser, "compare", "draw runs beside each other")
    compare.add_argument(
        "runs", metavar="RUN", type=Path, nargs="+", help="folders of runs, or files of records"
    )
    compare.add_argument(
        "-o", "--output", metavar="FILE", type=writable_file, required=True, help="the page"
    )
    compare.set_defaults(act=_compare)


def _add_method(train: argparse.ArgumentParser) -> None:
    add = train.add_argument
    add("--staleness", metavar="N", type=_whole, default=0, help="most steps samples are old (0)")
    add("--gac", action="store_true", help="take out of gradients what repeats those before")
    add("--correction", choices=CORRECTIONS, help="the loss of old samples (truncated, --kl 0.03)")
    add(
        "--compensation",
        metavar="STRENGTH",
        type=_amount,
        default=0.0,
        help="delay compensation: 1 / STRENGTH is how far a weight may move",
    )
    add("--kl", metavar="X", type=_amount, help="reward that a nat of drift costs")
    add("--token-budget", metavar="N", type=_positive, help="mean tokens of an answer to hold")
    add("--lr", metavar="X", type=_positive, help="learning rate of AdamW (the recipe's own)")
    add("--steps", metavar="N", type=_count, default=150, help="steps in all (150)")
    add("--seed", metavar="N", type=_whole, default=0, help="of all chance (0)")


def _add_engine(train: argparse.ArgumentParser) -> None:
    add = train.add_argument
    add("--engine", choices=ENGINES, default="local", help="who makes samples (local)")
    add("--workers", metavar="N", type=_count, default=1, help="processes, with ray (1)")
    add("--address", metavar="HOST:PORT", help="a Ray cluster that runs already")
    add("--order", choices=ORDERS, default="fifo", help="how samples age, with local (fifo)")
    add("--device", metavar="KIND", default="cpu", help="where the policy is (cpu)")
    add("--micro-batch", metavar="N", type=_count, help="answers in memory at once (all)")
    add("--checkpoint-every", metavar="K", type=_count, default=50, help="steps between them (50)")
    add("--tensorboard", action="store_true", help="event files too, in DIR/tensorboard")
    add("--resume", action="store_true", help="go on from the folder's checkpoint")
    add("-o", "--output", metavar="DIR", type=Path, help="for the run (runs/RECIPE-METHOD-...)")


def _count(text: str) -> int:
    return _integer(text, 1)


def _whole(text: str) -> int:
    return _integer(text, 0)


def _integer(text: str, least: int) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) >= least):
        raise InputError(
            need=f"a whole number of at least {least}", got=repr(text), hint="for example 8"
        )
    return int(text)


def _amount(text: str) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = math.nan
    if not 0.0 <= amount < math.inf:
        raise InputError(need="a number of at least 0", got=repr(text), hint="for example 0.1")
    return amount


def _positive(text: str) -> float:
    amount = _amount(text)
    if amount == 0.0:
        raise InputError(need="a number above 0", got=repr(text), hint="for example 1e-3")
    return amount


def _execute(args: argparse.Namespace, console: Console) -> None:
    args.act(args, console)


def _train(args: argparse.Namespace, console: Console) -> None:
    from weft.report.bench import environment
    from weft.workflow.train_rl import train_rl

    settings = _settings(args)
    _check_folder(settings.folder)
    host = environment()
    # Ray prints to the standard output when a process dies. That is the place of the result.
    with console.progress() as progress, redirect_stdout(sys.stderr):
        summary = train_rl(
            settings,
            about={name: host[name] for name in ("hardware", "versions")},
            progress=progress,
            on_step=_lines(settings.steps, console),
            tell=console.line,
        )
    console.line(_closing_line(summary))
    console.result(summary.to_plain())
    if summary.stopped == signal.SIGINT:
        raise KeyboardInterrupt
    if summary.stopped is not None:
        raise SystemExit(128 + summary.stopped)


def _settings(args: argparse.Namespace) -> TrainSettings:
    given = TrainSettings(
        recipe=args.recipe,
        folder=Path(),
        steps=args.steps,
        staleness=args.staleness,
        engine=args.engine,
        seed=args.seed,
        learning_rate=args.lr,
        correction=args.correction,
        gac=args.gac,
        compensation=args.compensation,
        kl=args.kl,
        token_budget=args.token_budget,
        micro_batch=args.micro_batch,
        workers=args.workers,
        address=args.address,
        order=args.order,
        device=args.device,
        checkpoint_every=args.checkpoint_every,
        tensorboard=args.tensorboard,
        resume=args.resume,
    )
    return replace(given, folder=_folder(given) if args.output is None else args.output)


def _folder(settings: TrainSettings) -> Path:
    _, name = split_recipe(settings.recipe)
    about = (settings.method, f"s{settings.staleness}", settings.engine, f"seed{settings.seed}")
    return Path("runs") / "-".join((name, *about))


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            need="a folder for the run",
            got=f"{folder}: {error.strerror}",
            hint="name another with -o",
        ) from error


def _lines(steps: int, console: Console) -> Callable[[Mapping[str, object]], None]:
    """Tells of some of the steps; a bar tells of all, where there is one."""
    every = max(1, steps // _LINES)

    def show(step: Mapping[str, object]) -> None:
        number = int(str(step["step"]))
        if number % every and number != steps:
            return
        parts = [f"step {number:>5}"]
        shown = {"reward": "6.3f", "staleness": "4.1f", "kl": "7.4f", "cosine_raw": "+5.2f"}
        for name, form in shown.items():
            value = step.get(name)
            if isinstance(value, float):
                parts.append(f"{name.removesuffix('_raw')} {value:{form}}")
        console.line("  ".join(parts))

    return show


def _closing_line(summary: Summary) -> str:
    if summary.reward is None:
        return "stopped before the first step, --resume goes on"
    ended = "done" if summary.stopped is None else "stopped early, --resume goes on"
    if summary.samples_per_s is None:
        ended = "nothing left to do" if summary.stopped is None else ended
    speed = "" if summary.samples_per_s is None else f", {summary.samples_per_s:.0f} samples/s"
    return (
        f"{ended}: {summary.steps} steps, reward {summary.reward:.3f} at the end{speed};"
        f" recorded in {summary.folder}"
    )


def _compare(args: argparse.Namespace, console: Console) -> None:
    from weft.core.files import write_whole
    from weft.report.rl_page import rl_page

    write_whole(args.output, rl_page(args.runs), "a page")
    console.line(f"wrote {args.output}")
    console.result({"page": str(args.output), "runs": [str(run) for run in args.runs]})


COMMAND = Command(
    name="rl",
    summary="train a policy on samples that older ones made, and compare runs",
    example="example: weft rl train recipes/rl_reverse.py:rl_reverse --staleness 8 --gac",
    add_arguments=_add_arguments,
    execute=_execute,
)
