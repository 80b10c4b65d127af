"""Names that load when they are first used."""

import sys
from types import ModuleType

import pytest

from weft.core.lazy import lazy


def test_a_name_is_found_once_and_others_are_refused(monkeypatch):
    package, asked = ModuleType("some_package"), []
    package.__getattr__ = lazy("some_package", {"loads": "json"})
    monkeypatch.setitem(sys.modules, "some_package", package)
    monkeypatch.setattr(
        "importlib.import_module", lambda name: asked.append(name) or sys.modules[name]
    )
    import json

    assert package.loads is json.loads and package.loads is json.loads
    assert asked == ["json"]
    with pytest.raises(AttributeError, match="module 'some_package' has no attribute 'dumps'"):
        _ = package.dumps
