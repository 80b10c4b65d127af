"""What calibration learns of the pipeline that a recipe makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from weft.core.errors import InputError, WeftError
from weft.workflow.progress import Progress, silent
from weft.workflow.recipe import call_recipe

if TYPE_CHECKING:
    from weft.diffusion.profile import Profile

__all__ = ["calibrate_recipe"]

PROMPTS = (
    "a red fox walks through deep snow, the camera follows it",
    "waves break on a rocky coast at sunset, seen from above",
    "an old man plays the violin in a crowded street",
    "city traffic at night in heavy rain, neon signs mirrored on the road",
)
"""Of a recipe without its own: an animal, water, a person, lights; slow and fast."""
_RETURNS = "a pipeline of diffusers', or a pair of a pipeline and a list of prompts"


def calibrate_recipe(
    recipe: str, *, prompts: int | None = None, probes: int = 6, progress: Progress = silent
) -> Profile:
    """Make a pipeline, run it on some prompts, and say what was learnt.

    Args:
        recipe: FILE.py:FUNCTION, of a function that returns a pipeline, or a pair of a pipeline
            and what it is called with: a dictionary of arguments for each prompt, each with a
            generator or latents.
        prompts: how many of them; None for all, or for two where the recipe has none.
        probes: steps in which an error is injected.
        progress: told how far it is.

    Raises:
        InputError: the recipe cannot be loaded or returns something else, its pipeline is
            unknown, or it has too few prompts.
        FileError: its file, or a package that it needs, is missing.
    """
    progress("pipeline", None)
    pipe, known = _parts(call_recipe(recipe, _RETURNS), recipe)
    progress("pipeline", 1.0)
    wanted = (len(known) if known else 2) if prompts is None else prompts
    offered: Sequence[Mapping[str, Any]] = known or _usual(pipe, recipe)
    if not 1 <= wanted <= len(offered):
        raise InputError(
            need=f"1 to {len(offered)} prompts of {recipe}",
            got=str(wanted),
            hint="return more of them: (pipe, [{'prompt': ..., 'generator': ...}, ...])",
        )
    from weft.diffusion.calibration import calibrate

    try:
        return calibrate(
            pipe,
            offered[:wanted],
            probes=probes,
            progress=lambda stage, share: progress(stage, share),
        )
    except WeftError as error:
        raise error.within(recipe) from error.__cause__


def _parts(returned: object, recipe: str) -> tuple[Any, list[Mapping[str, Any]]]:
    """The pipeline, and its prompts if there are any."""
    pipe, prompts = (
        returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, [])
    )
    is_list = isinstance(prompts, list) and all(isinstance(p, Mapping) for p in prompts)
    if not callable(pipe) or not hasattr(pipe, "components") or not is_list:
        raise InputError(
            need=f"a recipe function that returns {_RETURNS}",
            got=f"{recipe} returned {_shown(returned)}",
            hint="end the function with `return pipe, [{'prompt': ..., 'generator': ...}]`",
        )
    return pipe, cast("list[Mapping[str, Any]]", prompts)


def _shown(returned: object) -> str:
    if isinstance(returned, tuple):
        return f"({', '.join(type(part).__name__ for part in returned)})"
    return type(returned).__name__


def _usual(pipe: object, recipe: str) -> list[Mapping[str, Any]]:
    """Prompts in words, for a pipeline that reads words."""
    if getattr(pipe, "text_encoder", None) is None:
        raise InputError(
            need="prompts for a pipeline that has no text encoder",
            got=f"{recipe} returned {type(pipe).__name__} alone",
            hint="return (pipe, [{'prompt_embeds': ..., 'generator': ...}, ...])",
        )
    import torch

    return [
        {"prompt": text, "generator": torch.Generator().manual_seed(seed)}
        for seed, text in enumerate(PROMPTS)
    ]
