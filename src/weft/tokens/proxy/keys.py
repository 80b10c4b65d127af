"""Keys of the proxy's own: who brings one spends from its node. Only their digests are kept.

A file of keys looks like this::

    keys:
      sha256:9f86d081884c7d65...: coder
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from weft.core.errors import FileError, InputError
from weft.core.files import read_text
from weft.core.yaml import load_once
from weft.tokens.budgets.node import check_path, shown

__all__ = ["Keyring", "add_key", "read_keys"]

_HINT = "weft tokens serve --keys FILE --new-key NODE adds one to a file"
_PREFIX = "sk-weft-"
_BYTES = 24
"""Of randomness in a key. Chosen: 192 bits cannot be guessed."""


class Keyring:
    """Nodes by the digests of keys.

    Args:
        nodes: path by the SHA-256 of a key, in hexadecimal. Without any, whoever asks spends from
            the root.

    Example:
        >>> ring = Keyring({hashlib.sha256(b"sk-1").hexdigest(): "coder"})
        >>> ring.node_of("Bearer sk-1"), ring.node_of("Bearer sk-2"), Keyring({}).node_of("")
        ('coder', None, '')
    """

    def __init__(self, nodes: Mapping[str, str]) -> None:
        self._nodes = dict(nodes)

    @property
    def is_open(self) -> bool:
        """Whether no key is asked for."""
        return not self._nodes

    @property
    def nodes(self) -> frozenset[str]:
        """Paths that keys spend from."""
        return frozenset(self._nodes.values())

    def node_of(self, authorization: str) -> str | None:
        """The node that a header's key spends from; None for one that is not known."""
        if not self._nodes:
            return ""
        kind, _, key = authorization.partition(" ")
        if kind.lower() != "bearer":
            return None
        # Nobody can aim at the digest of a key, so how long a look-up takes tells nothing.
        return self._nodes.get(_digest(key.strip()))


def read_keys(path: str | Path, nodes: Iterable[str]) -> dict[str, str]:
    """Read a file of keys: paths by digest.

    Args:
        path: the file; a key may also stand there itself.
        nodes: paths of the budget's nodes; "*" for any name beside it.

    Raises:
        FileError: it cannot be read, says something else, or names a node that is not there.
    """
    known = set(nodes)
    text = read_text(path, "a file of keys", _HINT)
    try:
        plain = load_once(text)
    except yaml.YAMLError as error:
        raise FileError(need="YAML", got=f"{path}: {error}", hint=_HINT) from error
    keys: object = cast("dict[str, Any]", plain).get("keys") if isinstance(plain, dict) else None
    if not isinstance(keys, dict):
        raise FileError(need="keys, each with a node", got=f"{path}", hint=_HINT)
    found: dict[str, str] = {}
    for key, node in cast("dict[Any, Any]", keys).items():
        place = str(node or "")
        above = place.rpartition("/")[0]
        if place not in known and (f"{above}/*" if above else "*") not in known:
            raise FileError(
                need="nodes of the budget", got=f"{path}: {shown(place)}", hint="add it to the file"
            )
        name = str(key)
        digest = name.removeprefix("sha256:")
        found[digest if name != digest and len(digest) == 64 else _digest(name)] = place
    return found


def add_key(path: str | Path, node: str) -> str:
    """Make a key, add its digest to a file, and return it: it is shown this once.

    Raises:
        InputError: the node is no path.
        FileError: the file cannot be written to.
    """
    check_path(node)
    key = _PREFIX + secrets.token_urlsafe(_BYTES)
    file = Path(path)
    try:
        text = file.read_text() if file.exists() else ""
        added = f'  sha256:{_digest(key)}: "{node}"\n'
        added = ("" if text.endswith("\n") else "\n" if text else "keys:\n") + added
        if not _is_keys(text + added):
            raise InputError(
                need="a file of keys, one a line", got=str(path), hint="name another file"
            )
        with file.open("a") as opened:
            opened.write(added)
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(
            need="a file of keys that can be written to", got=f"{path}: {error}", hint=_HINT
        ) from error
    return key


def _is_keys(text: str) -> bool:
    try:
        plain = load_once(text)
    except yaml.YAMLError:
        return False
    return isinstance(plain, dict) and isinstance(cast("dict[str, Any]", plain).get("keys"), dict)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
