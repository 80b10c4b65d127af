"""What lets a number be read as an effect."""

from __future__ import annotations

from enum import StrEnum

from weft.core.errors import InputError

__all__ = ["Link", "Mode", "unidentified"]


class Mode(StrEnum):
    """Where the variation of tokens that a fit uses comes from."""

    EXPERIMENTAL = "experimental"
    """From arms that were drawn at random: caps, efforts. Holds whatever else drives tokens, as
    long as an arm changes outcomes through the inputs alone."""
    WITHIN = "within"
    """From attempts at one task that differ. Holds if what differs between tasks is all that drives
    tokens and outcomes alike; not if an attempt that goes wrong runs on."""
    OBSERVATIONAL = "observational"
    """From wherever it came. An association: hard tasks take more tokens and fail more often."""


class Link(StrEnum):
    """What the index is, of an outcome."""

    LOG = "log"
    """The logarithm of an outcome above zero."""
    LOGIT = "logit"
    """Log odds of passing."""
    IDENTITY = "identity"
    """The outcome itself: for passing, a linear probability. With arms it takes no assumption on
    how difficulty and tokens hang together, and is blind to saturation."""


def unidentified(what: str) -> InputError:
    """What is raised where an effect is asked of an association."""
    return InputError(
        need=f"tokens that were moved by something other than the task, for {what}",
        got="an observational fit: hard tasks take more tokens and fail more often, so that its "
        "slope mixes what tokens do with what tasks are, and can have the wrong sign",
        hint="draw a cap or an effort at random for each attempt, note it as `arm`, and fit with "
        "mode experimental; or repeat tasks and fit with mode within",
    )
