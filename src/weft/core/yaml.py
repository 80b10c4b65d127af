"""YAML in which each name stands once: PyYAML keeps the last of several and says nothing.

Knows YAML and makes plain data of it; does not know what a file is for.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, cast

import yaml

from weft.core.files import BROKEN

__all__ = ["OnceLoader", "load_once"]


class OnceLoader(yaml.SafeLoader):
    """Makes plain data; refuses a mapping in which a name stands twice.

    Two names are one if they are spelt alike, as 1 and "1" are, or if they read alike, as 1000 and
    1_000 do. What a mapping takes over by `<<` it may say anew, spelt as it was. Where only nodes
    are asked for, nothing is read yet, so names are compared as they are spelt.
    """

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        """A mapping as it is written: making data of it puts what it takes over among its own.

        Raises:
            yaml.constructor.ConstructorError: a name is spelt twice.
        """
        node = super().compose_mapping_node(anchor)
        spelt: dict[str, yaml.Node] = {}
        for name in (name for name, _ in node.value if isinstance(name, yaml.ScalarNode)):
            word = str(name.value)
            if word in spelt:
                raise _twice(spelt[word], name)
            spelt[word] = name
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Plain data of a mapping.

        Raises:
            yaml.constructor.ConstructorError: two names read alike.
        """
        plain = super().construct_mapping(node, deep=deep)
        read: dict[Hashable, yaml.Node] = {}
        for name, _ in node.value:
            # Made already, so this looks it up; its type is not declared.
            key = cast(Hashable, cast(Any, self).construct_object(name))
            first = read.setdefault(key, name)
            if first.value != name.value:
                raise _twice(first, name)
        return plain


def _twice(first: yaml.Node, again: yaml.Node) -> yaml.constructor.ConstructorError:
    other = "" if again.value == first.value else f" as {again.value!r}"
    return yaml.constructor.ConstructorError(
        f"{first.value!r} stands twice", first.start_mark, f"and again{other}", again.start_mark
    )


def load_once(text: str, loader: type[OnceLoader] = OnceLoader) -> object:
    """What a text says.

    Args:
        text: YAML.
        loader: reads it; another kind may take other words for numbers.

    Raises:
        yaml.YAMLError: it is no YAML, holds what cannot be read, such as a thirteenth month, is
            nested too deeply, or a name stands twice in one mapping.

    Example:
        >>> load_once("a: 1")
        {'a': 1}
        >>> load_once("{a: 1, a: 2}")
        Traceback (most recent call last):
        yaml.constructor.ConstructorError: 'a' stands twice
          in "<unicode string>", line 1, column 2:
            {a: 1, a: 2}
             ^
        and again
          in "<unicode string>", line 1, column 8:
            {a: 1, a: 2}
                   ^
    """
    try:
        # The loader is a safe one: it makes plain data only.
        return cast(object, yaml.load(text, loader))
    except RecursionError as error:
        raise yaml.YAMLError("nested too deeply") from error
    except (*BROKEN, IndexError) as error:
        raise yaml.YAMLError(f"{type(error).__name__}: {error}") from error
