"""Checkpoints on one rank: whole or absent, checked before they are read."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

from tests.unit.runtime import workload
from weft.core.digest import digest
from weft.core.errors import FileError, MismatchError
from weft.runtime import checkpoint
from weft.runtime.checkpoint import load_checkpoint, read_about, save_checkpoint, stored_steps


def trained(steps, seed=3):
    step = workload.step(seed)
    for number in range(steps):
        step(workload.tiny(seed).batch(number))
    return step


def copied_state(step):
    return {name: tensor.clone() for name, tensor in step.full_state().items()}


def is_equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_what_is_loaded_is_what_was_saved(tmp_path):
    saved = trained(3)
    save_checkpoint(tmp_path, saved)
    fresh = workload.step()
    about = load_checkpoint(tmp_path, fresh)
    assert (about.step, fresh.number, about.seed, about.world_size) == (3, 3, 3, 1)
    assert about.program_digest == workload.program().digest
    assert is_equal(copied_state(fresh), copied_state(saved))
    batch = workload.tiny().batch(3)
    assert float(fresh(batch)) == float(saved(batch))


def test_a_folder_without_checkpoints_starts_from_the_beginning(tmp_path):
    assert load_checkpoint(tmp_path / "none", workload.step()) is None
    assert load_checkpoint(tmp_path, workload.step()) is None


def test_only_the_newest_are_kept_and_latest_names_the_last(tmp_path):
    step = trained(0)
    for number in range(4):
        step(workload.tiny().batch(number))
        save_checkpoint(tmp_path, step, keep=2)
    assert stored_steps(tmp_path) == [3, 4]
    assert (tmp_path / "latest").read_text() == "step-00000004\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "latest",
        "step-00000003",
        "step-00000004",
    ]


def test_what_was_just_published_is_never_pruned(tmp_path):
    late = trained(1)
    for late.number in (70, 80):
        save_checkpoint(tmp_path, late)
    early = trained(1)
    for early.number in (1, 2, 3):
        assert save_checkpoint(tmp_path, early, keep=1).is_dir()
    assert stored_steps(tmp_path) == [3, 70, 80]
    assert (tmp_path / "latest").read_text() == "step-00000003\n"


class Killed(BaseException):
    """The end of the process, as far as the code under test can see."""


def kill_at(monkeypatch, moment):
    """Die at the n-th operation on files that a save makes; returns the operations seen.

    Writing the tensors counts as one: torch would turn a kill inside of it into an error.
    """
    seen, busy = [], []

    def deadly(owner, name):
        original = getattr(owner, name)

        def replacement(*args, **kwargs):
            if busy:
                return original(*args, **kwargs)
            seen.append(name)
            if len(seen) == moment:
                if name == "rmtree":  # half done
                    next(p for p in Path(args[0]).rglob("*") if p.is_file()).unlink()
                raise Killed
            busy.extend([name] if name == "save" else [])
            try:
                return original(*args, **kwargs)
            finally:
                busy.clear()

        monkeypatch.setattr(owner, name, replacement)

    for owner, names in (
        (Path, ("mkdir", "rename", "replace")),
        (shutil, ("rmtree",)),
        (checkpoint.dcp, ("save",)),
        (checkpoint, ("_crc", "_write_durably", "_sync_folder")),
    ):
        for name in names:
            deadly(owner, name)
    return seen


def operations_of_a_save(monkeypatch, folder):
    step = trained(4)
    step.number = 2
    save_checkpoint(folder, step)
    step.number = 3
    save_checkpoint(folder, step)
    step.number = 4
    with monkeypatch.context() as patch:
        seen = kill_at(patch, moment=-1)
        save_checkpoint(folder, step)
    return seen


def test_a_kill_at_any_moment_of_a_save_leaves_a_whole_checkpoint(tmp_path, monkeypatch):
    total = len(operations_of_a_save(monkeypatch, tmp_path / "count"))
    assert total >= 9
    older, newer = trained(3), trained(4)
    states = {3: copied_state(older), 4: copied_state(newer)}
    for moment in range(1, total + 1):
        folder = tmp_path / str(moment)
        save_checkpoint(folder, trained(2))
        save_checkpoint(folder, older)
        with monkeypatch.context() as patch:
            kill_at(patch, moment)
            with pytest.raises(Killed):
                save_checkpoint(folder, newer)
        found = workload.step()
        about = load_checkpoint(folder, found)
        assert is_equal(copied_state(found), states[about.step]), f"killed at operation {moment}"
        save_checkpoint(folder, newer)
        hidden = [p.name for p in folder.iterdir() if p.name.startswith(".step-")]
        assert hidden == [], "the next save removes what the kill left"


def test_saving_a_step_again_replaces_it(tmp_path):
    save_checkpoint(tmp_path, trained(2))
    other = trained(3)
    other.number = 2
    save_checkpoint(tmp_path, other)
    found = workload.step()
    load_checkpoint(tmp_path, found)
    assert is_equal(copied_state(found), copied_state(other))


def damage_data(path):
    file = max((path / "data").iterdir(), key=lambda p: p.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)


def truncate_data(path):
    file = next((path / "data").glob("*.distcp"))
    file.write_bytes(file.read_bytes()[:-100])


def lose_data(path):
    next((path / "data").glob("*.distcp")).unlink()


def tear_description(path):
    about = path / "about.json"
    about.write_text(about.read_text()[:50])


def change_description(path):
    raw = json.loads((path / "about.json").read_text())
    raw["about"]["step"] = 7
    (path / "about.json").write_text(json.dumps(raw))


def rewrite_description(path, change):
    """A description with another content and the checksum that belongs to it."""
    raw = json.loads((path / "about.json").read_text())
    change(raw["about"])
    raw["checksum"] = digest(raw["about"])
    (path / "about.json").write_text(json.dumps(raw))


def describe_more(path):
    rewrite_description(path, lambda about: about.update(weather="fine"))


def describe_less(path):
    rewrite_description(path, lambda about: about.pop("seed"))


def describe_files_otherwise(path):
    rewrite_description(path, lambda about: about.update(files=[["data/a"]]))


def describe_a_step_in_words(path):
    rewrite_description(path, lambda about: about.update(step="two"))


def nest_description(path):
    (path / "about.json").write_text("[" * 100_000)


def lose_description(path):
    (path / "about.json").unlink()


DAMAGES = [
    damage_data,
    truncate_data,
    lose_data,
    tear_description,
    change_description,
    describe_more,
    describe_less,
    describe_files_otherwise,
    describe_a_step_in_words,
    nest_description,
    lose_description,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
def test_a_damaged_checkpoint_is_passed_over_with_a_line_in_the_log(tmp_path, caplog, damage):
    older = trained(1)
    save_checkpoint(tmp_path, older)
    damage(save_checkpoint(tmp_path, trained(2)))
    found = workload.step()
    with caplog.at_level(logging.WARNING, logger="weft.runtime"):
        assert load_checkpoint(tmp_path, found).step == 1
    assert is_equal(copied_state(found), copied_state(older))
    assert [r.message for r in caplog.records if "step-00000002" in r.message]


def test_without_a_whole_checkpoint_the_error_lists_the_damaged_ones(tmp_path):
    for number in (1, 2):
        lose_data(save_checkpoint(tmp_path, trained(number)))
    with pytest.raises(FileError, match="a whole checkpoint in") as caught:
        load_checkpoint(tmp_path, workload.step())
    assert "step-00000001" in caught.value.got
    assert "step-00000002" in caught.value.got


def test_a_checkpoint_of_a_newer_format_is_refused(tmp_path):
    path = save_checkpoint(tmp_path, trained(1))
    raw = json.loads((path / "about.json").read_text())
    (path / "about.json").write_text(json.dumps({**raw, "weft_checkpoint": 99}))
    with pytest.raises(FileError, match="format 99"):
        read_about(path)


def test_a_checkpoint_of_another_seed_is_refused_and_both_are_named(tmp_path):
    save_checkpoint(tmp_path, trained(1, seed=3))
    with pytest.raises(MismatchError) as caught:
        load_checkpoint(tmp_path, workload.step(seed=4))
    assert "seed 4" in caught.value.need
    assert "seed 3" in caught.value.got


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileError, match="file"):
        save_checkpoint(tmp_path / "file", trained(1))
