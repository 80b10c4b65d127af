"""Fields that have to be functions, such as what makes a model.

Knows no model: who asks says what can be called and is none all the same.
"""

from __future__ import annotations

from collections.abc import Mapping

from weft.core.errors import InputError

__all__ = ["require_functions"]


def require_functions(owner: object, examples: Mapping[str, str], *, unlike: type) -> None:
    """Check that fields of an object are functions.

    Args:
        owner: the object.
        examples: its fields that have to be, and what one may look like.
        unlike: what can be called as well, but was meant to be what a function returns.

    Raises:
        InputError: one is not; says what it is.
    """
    for field, example in examples.items():
        value: object = getattr(owner, field)
        if not callable(value) or isinstance(value, unlike):
            raise InputError(
                need=f"{field}: a function", got=type(value).__name__, hint=f"{field}={example}"
            )
