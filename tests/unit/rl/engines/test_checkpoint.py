"""Checkpoints are whole or not there."""

import os
from pathlib import Path

import pytest
import torch

from weft.core.errors import FileError
from weft.rl.engines.checkpoint import load_checkpoint, save_checkpoint


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"a": torch.arange(3), "b": {"c": [1, "x", None]}})
    found = load_checkpoint(path)
    assert found["a"].tolist() == [0, 1, 2] and found["b"] == {"c": [1, "x", None]}
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_what_fails_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"a": 1})

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="No space left"):
        save_checkpoint(path, {"a": 2})
    assert load_checkpoint(path)["a"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_missing_one_says_so(tmp_path):
    with pytest.raises(FileError, match="without --resume"):
        load_checkpoint(tmp_path / "checkpoint.pt")


@pytest.mark.parametrize("damage", ["cut", "other", "text", "code"])
def test_a_damaged_one_is_refused(tmp_path, damage):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"a": torch.zeros(1000)})
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-500])
    elif damage == "other":
        torch.save({"a": 1}, path)
    elif damage == "text":
        path.write_text("hello")
    else:
        torch.save({"a": Path("runs code")}, path)
    with pytest.raises(FileError, match="in another folder"):
        load_checkpoint(path)


def test_one_of_another_version_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"weft": "rl checkpoint", "version": 99}, path)
    with pytest.raises(FileError, match="version 99"):
        load_checkpoint(path)
