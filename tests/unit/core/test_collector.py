"""The collector is paused inside, and as it was afterwards."""

from __future__ import annotations

import gc

import pytest

from weft.core.collector import collector_paused


@pytest.mark.parametrize("was_on", [True, False])
def test_it_is_as_before_afterwards(was_on: bool) -> None:
    before = gc.isenabled()
    (gc.enable if was_on else gc.disable)()
    try:
        with pytest.raises(KeyError):
            _raise_while_paused()
        assert gc.isenabled() is was_on
    finally:
        (gc.enable if before else gc.disable)()


def _raise_while_paused() -> None:
    with collector_paused():
        assert not gc.isenabled()
        raise KeyError
