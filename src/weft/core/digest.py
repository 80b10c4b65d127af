"""Content digests: a short, stable name for plain data.

Two values have the same digest exactly when their canonical JSON is the same, on every
machine and Python version. Knows JSON; does not know what the data mean.
"""

from __future__ import annotations

import hashlib
import json

from weft.core.errors import InputError

__all__ = ["canonical_json", "digest"]


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spare white space, in ASCII.

    Raises:
        InputError: the value holds NaN, infinity, or something that is not plain JSON.

    Example:
        >>> canonical_json({"b": (1, 2.5), "a": None})
        '{"a":null,"b":[1,2.5]}'
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            need="plain JSON: finite numbers, strings, booleans, None, lists, string-keyed dicts",
            got=str(error),
            hint="convert arrays and tensors with float(), int() or .tolist()",
        ) from error


def digest(value: object) -> str:
    """First 16 hex digits of the SHA-256 of the canonical JSON of `value`.

    Raises:
        InputError: the value is not plain JSON.

    Example:
        >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
        True
    """
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]
