"""Trees of caps, and the keys that spend from them, in a YAML file.

Such a file looks like this::

    cap: 500 usd monthly          # of all; several in brackets
    nodes:
      coder:
        cap: [50 usd daily, 2000 calls hourly]
        nodes:
          "*": {cap: 2 usd}       # each node beside it, added when it first spends
      reader:
        cap: 2e6 tokens rolling 3600 s
    keys:
      sk-coder-1: coder           # who brings this key spends from coder
      sha256:9f86d081884c7d65...: reader   # the same for a key that is not written down
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from weft.core.errors import FileError, InputError
from weft.core.files import read_text
from weft.core.yaml import OnceLoader
from weft.tokens.budgets.budget import Budget
from weft.tokens.budgets.node import ROOT, Cap, check_path, shown
from weft.tokens.budgets.refusal import NodeError
from weft.tokens.budgets.window import parse_window
from weft.tokens.money import parse_money

__all__ = ["BudgetsFile", "read_budgets"]

_HINT = "see the guide on budgets for what such a file looks like"
_CAP = re.compile(r"(.+?)(?:\s+(none|hourly|daily|monthly|rolling\s.+))?")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetsFile:
    """What a file of budgets says.

    Attributes:
        nodes: caps by path, those above first.
        keys: path by the SHA-256 of a key, in hexadecimal.
    """

    nodes: Mapping[str, tuple[Cap, ...]]
    keys: Mapping[str, str] = field(default_factory=dict[str, str])

    def node_of(self, key: str) -> str | None:
        """The node that a key spends from; None for one that is not known."""
        digest = hashlib.sha256(key.encode()).hexdigest()
        # Comparing all of them in full takes as long for a key that is nearly right.
        found = [path for own, path in self.keys.items() if hmac.compare_digest(own, digest)]
        return found[0] if found else None

    def open(self, where: str | Path, **options: float | bool) -> Budget:
        """Open a budget with these nodes; caps that differ from the file's are changed to them.

        Args:
            where: see `Budget.open`.
            options: lease_s or durable, likewise.

        Raises:
            NodeError: a node is there, with caps in other units or windows.
        """
        try:
            budget = Budget.open(where, cap=self.nodes[ROOT], **options)  # pyright: ignore[reportArgumentType]
        except NodeError:
            budget = Budget.open(where, **options)  # pyright: ignore[reportArgumentType]
        for path, caps in self.nodes.items():
            try:
                budget.add(path, *caps)
            except NodeError:
                for cap in caps:
                    budget.set_cap(path, cap)
                budget.add(path, *caps)
        return budget


def read_budgets(path: str | Path) -> BudgetsFile:
    """Read a file of budgets.

    Raises:
        FileError: it cannot be read, or says something else; the error names the line.
    """
    text = read_text(path, "a file of budgets", _HINT)
    try:
        root: yaml.Node | None = OnceLoader(text).get_single_node()
        if root is None:
            raise InputError(need="a cap of the whole budget", got="an empty file", hint=_HINT)
        return _file(root)
    except InputError as error:
        raise FileError(need=error.need, got=error.got, hint=error.hint).within(
            str(path)
        ) from error
    except RecursionError as error:
        raise FileError(need="nodes that end", got="some within themselves", hint=_HINT).within(
            str(path)
        ) from error
    except yaml.YAMLError as error:
        got = " ".join(str(error).split())
        raise FileError(need="YAML", got=got, hint=_HINT).within(str(path)) from error


def _file(root: yaml.Node) -> BudgetsFile:
    parts = _parts(root, {"cap", "nodes", "keys"})
    nodes = dict(_nodes(root, ROOT))
    keys: dict[str, str] = {}
    for name, value in _pairs(parts["keys"]) if "keys" in parts else ():
        path = _path(value, _word(value))
        if path not in nodes and f"{path.rpartition('/')[0]}/*".lstrip("/") not in nodes:
            raise _wrong(value, "a node of this file", repr(path))
        digest = _DIGEST.fullmatch(_word(name))
        if digest is None and _word(name).startswith("sha256:"):
            raise _wrong(name, "sha256: and 64 hexadecimal digits", repr(_word(name)))
        keys[digest[1] if digest else hashlib.sha256(_word(name).encode()).hexdigest()] = path
    return BudgetsFile(nodes=nodes, keys=keys)


def _nodes(node: yaml.Node, path: str) -> Iterator[tuple[str, tuple[Cap, ...]]]:
    parts = _parts(node, {"cap", "nodes", *(["keys"] if path == ROOT else [])})
    if "cap" not in parts:
        raise _wrong(node, f"a cap of {shown(path)}", "none")
    caps = parts["cap"]
    each = caps.value if isinstance(caps, yaml.SequenceNode) else [caps]
    found = tuple(map(_cap, each))
    if not found or len({(c.most.currency, c.window) for c in found}) < len(found):
        raise _wrong(caps, "caps, one for each unit and window", str(list(found)))
    yield path, found
    for name, child in _pairs(parts["nodes"]) if "nodes" in parts else ():
        own = _word(name)
        if not own or "/" in own:  # an empty one would stand for the root
            raise _wrong(name, "a name, without a slash: nodes lie within nodes", repr(own))
        below = _path(name, f"{path}/{own}".lstrip("/"))
        yield from _nodes(child, below)


def _cap(node: yaml.Node) -> Cap:
    match = _CAP.fullmatch(_word(node).strip().lower())
    try:
        if match is None:
            raise InputError(need="a cap such as 50 usd daily", got="nothing", hint=_HINT)
        return Cap(parse_money(match[1]), parse_window(match[2] or "none"))
    except InputError as error:
        raise _wrong(node, error.need, error.got) from error


def _path(node: yaml.Node, path: str) -> str:
    try:
        return check_path(path)
    except InputError as error:
        raise _wrong(node, error.need, error.got) from error


def _parts(node: yaml.Node, known: set[str]) -> dict[str, yaml.Node]:
    parts: dict[str, yaml.Node] = {}
    for name, value in _pairs(node):
        if _word(name) not in known:
            raise _wrong(name, f"one of {', '.join(sorted(known))}", repr(_word(name)))
        parts[_word(name)] = value
    return parts


def _pairs(node: yaml.Node) -> list[tuple[yaml.Node, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        raise _wrong(node, "names, each with a colon", repr(node.value))
    return node.value


def _word(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise _wrong(node, "text or a number", "a list or names")
    return str(node.value)


def _wrong(node: yaml.Node, need: str, got: str) -> InputError:
    return InputError(need=need, got=f"line {node.start_mark.line + 1}: {got}", hint=_HINT)
