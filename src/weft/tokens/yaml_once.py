"""YAML in which each name stands once: PyYAML keeps the last of several and says nothing."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

__all__ = ["load_once"]


class _Once(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for name, _ in node.value:
            word = str(name.value) if isinstance(name, yaml.ScalarNode) else ""
            if word in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"{word!r} stands twice", problem_mark=name.start_mark
                )
            seen |= {word} - {""}
        return super().construct_mapping(node, deep)


def load_once(text: str) -> object:
    """What a text says.

    Raises:
        yaml.YAMLError: it is no YAML, or a name stands twice in one mapping.

    Example:
        >>> load_once("a: 1")
        {'a': 1}
        >>> load_once("{a: 1, a: 2}")
        Traceback (most recent call last):
        yaml.constructor.ConstructorError: 'a' stands twice
          in "<unicode string>", line 1, column 8:
            {a: 1, a: 2}
                   ^
    """
    return yaml.load(text, _Once)
