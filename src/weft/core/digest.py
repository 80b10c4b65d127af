"""Content digests: a short, stable name for plain data.

Two values have the same digest exactly when their canonical JSON is the same, on every
machine and Python version. Knows JSON; does not know what the data mean.
"""

from __future__ import annotations

import hashlib
import json

__all__ = ["canonical_json", "digest"]


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spare white space; NaN and infinity are refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: object) -> str:
    """First 16 hex digits of the SHA-256 of the canonical JSON of `value`.

    Example:
        >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
        True
    """
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]
