"""`weft denoise`: learn what shortcuts do to a video pipeline, and look at what was learnt."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from weft.cli.command import Command
from weft.cli.commands.options import add_action, add_recipe, writable_file
from weft.cli.console import Console
from weft.core.errors import FileError, InputError
from weft.core.files import read_text
from weft.workflow.progress import Progress, silent

if TYPE_CHECKING:
    from weft.diffusion.profile import Profile

__all__ = ["COMMAND"]

_KINDS = {"denoise plan": "plan", "denoise profile": "profile"}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    calibrate = add_action(
        actions.add_parser, "calibrate", "run a pipeline on some prompts and write what was learnt"
    )
    add_recipe(calibrate)
    calibrate.add_argument(
        "-o", "--output", metavar="FILE", type=writable_file, required=True, help="the profile"
    )
    calibrate.add_argument(
        "--prompts", metavar="N", type=_count, help="how many of the recipe's prompts (all)"
    )
    calibrate.add_argument(
        "--probes", metavar="N", type=_count, default=6, help="steps to inject errors in (6)"
    )
    calibrate.set_defaults(act=_calibrate)
    pareto = add_action(actions.add_parser, "pareto", "draw what a profile's speed costs")
    pareto.add_argument("profile", metavar="PROFILE", type=Path, help="a profile's file")
    pareto.add_argument(
        "-o", "--output", metavar="FILE", type=writable_file, required=True, help="the page"
    )
    pareto.add_argument(
        "--point",
        metavar="NAME=SPEED,DB",
        type=_point,
        action="append",
        default=[],
        help="what another system reaches, such as 'other cache=1.8,27.5'; repeat for more",
    )
    pareto.set_defaults(act=_pareto)
    show = add_action(actions.add_parser, "show", "show a denoise plan or a profile")
    show.add_argument("file", metavar="FILE", type=Path, help="a plan's or a profile's file")
    show.set_defaults(act=_show)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise InputError(need="a number of at least 1", got=repr(text), hint="leave it out")
    return int(text)


def _point(text: str) -> tuple[str, float, float]:
    name, _, numbers = text.rpartition("=")
    try:
        speedup, psnr_db = map(float, numbers.split(","))
    except ValueError:
        speedup = psnr_db = math.nan
    if not name or not (math.isfinite(speedup) and math.isfinite(psnr_db) and speedup > 0):
        raise InputError(
            need="a point as NAME=SPEED,DB, with a speed above 0",
            got=repr(text),
            hint="for example --point 'other cache=1.8,27.5'",
        )
    return name, speedup, psnr_db


def _execute(args: argparse.Namespace, console: Console) -> None:
    args.act(args, console)


def _calibrate(args: argparse.Namespace, console: Console) -> None:
    from weft.diffusion.profile import save_profile
    from weft.report.denoise_table import profile_plain
    from weft.workflow.calibrate_recipe import calibrate_recipe

    with console.progress() as progress:
        profile = calibrate_recipe(
            args.recipe,
            prompts=args.prompts,
            probes=args.probes,
            progress=_told(console) if progress is silent else progress,
        )
    save_profile(profile, args.output)
    _show_profile(profile, console)
    console.line(f"wrote {args.output}")
    console.result(profile_plain(profile))


def _told(console: Console) -> Progress:
    """Progress in lines on standard error, at most one for each tenth of a stage."""
    told: set[tuple[str, int]] = set()

    def tell(stage: str, share: float | None, detail: str = "") -> None:
        at = int(10 * (share or 0.0) + 1e-9)
        if (stage, at) not in told:
            told.add((stage, at))
            done = "" if share is None else f" {10 * at} %"
            console.warn(f"{stage}{done} {detail}".rstrip())

    return tell


def _pareto(args: argparse.Namespace, console: Console) -> None:
    from weft.diffusion.profile import load_profile
    from weft.report.denoise_pareto import pareto_page
    from weft.report.page import write_page

    profile = load_profile(args.profile)
    with console.progress() as progress:
        page = pareto_page(profile, args.point, progress=progress)
    write_page(page, args.output)
    console.line(page.sentence)
    console.line(f"wrote {args.output}")
    console.result({"sentence": page.sentence, "page": str(args.output)})


def _show(args: argparse.Namespace, console: Console) -> None:
    from weft.diffusion.plan import load_plan
    from weft.diffusion.profile import load_profile
    from weft.report.denoise_table import plan_plain, plan_table, profile_plain

    if _kind(args.file) == "profile":
        profile = load_profile(args.file)
        _show_profile(profile, console)
        console.result(profile_plain(profile))
    else:
        plan = load_plan(args.file)
        console.table(plan_table(plan))
        console.result(plan_plain(plan))


def _kind(path: Path) -> str:
    """What a file holds.

    Raises:
        FileError: neither a plan nor a profile.
    """
    what, hint = "a denoise plan or a denoise profile", "weft denoise calibrate makes a profile"
    text = read_text(path, what, hint)
    try:
        plain = json.loads(text)
        return _KINDS[plain["weft"]]
    except (ValueError, KeyError, TypeError) as error:
        raise FileError(
            need=what, got=f"{path}: {type(error).__name__}: {error}", hint=hint
        ) from error


def _show_profile(profile: Profile, console: Console) -> None:
    from weft.report.denoise_table import profile_sentence, profile_tables

    console.line(profile_sentence(profile))
    for table in profile_tables(profile):
        console.table(table)
        console.line()


COMMAND = Command(
    name="denoise",
    summary="learn what shortcuts do to a video pipeline, and show it",
    example="example: weft denoise calibrate recipe.py:pipe -o profile.json",
    add_arguments=_add_arguments,
    execute=_execute,
)
