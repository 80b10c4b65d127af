"""Checkpoints that a kill cannot damage, readable by another plan and another number of ranks.

    FOLDER/
      step-00000040/        complete, because only complete ones get this name
        about.json          step, seed, digests, world size, and size and checksum of each file
        data/               the tensors, as torch.distributed.checkpoint writes them
      step-00000050/
      latest                name of the newest, for people and scripts; replaced as a whole
      .step-00000060-3f2a   being written, or left by a kill; removed by the next save

A checkpoint is written under a hidden name and renamed when all ranks are done. Loading reads
the newest that is whole; a damaged one is passed over with a line in the log, never silently.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import uuid
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

from weft.core.digest import digest
from weft.core.errors import FileError, MismatchError, WeftError
from weft.runtime.step import Trainable
from weft.runtime.world import World, gather_objects

__all__ = [
    "About",
    "load_checkpoint",
    "open_folder",
    "read_about",
    "save_checkpoint",
    "stored_steps",
]

T = TypeVar("T")

VERSION = 1
"""Version of the layout; a checkpoint of a newer version is refused."""

_LOG = logging.getLogger("weft.runtime")
_NAME = re.compile(r"step-(\d{8,})")
_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a checkpoint holds.

    Attributes:
        step: steps done; also the position in the data, as batches are numbered by step.
        seed: the workload's.
        program_name, program_digest: the program whose state it is.
        plan_digest: the plan that ran; another may go on.
        world_size: ranks that wrote it; another number may go on.
        files: path, size and CRC-32 of each data file.
    """

    step: int
    seed: int
    program_name: str
    program_digest: str
    plan_digest: str
    world_size: int
    files: tuple[tuple[str, int, int], ...]


def open_folder(folder: Path, world: World, *, resume: bool) -> None:
    """Make a folder ready for the checkpoints of a run; all ranks call it before the first step.

    Args:
        folder: where checkpoints of this run will be.
        world: the ranks; the first one looks, and all learn what it found.
        resume: whether the run goes on from what is there.

    Raises:
        FileError: it cannot be written, or it holds checkpoints that the run would not go on
            from. Steps of two runs in one folder could not be told apart.
    """
    _together(world, lambda: _first_only(world, lambda: _require_usable(folder, resume=resume)))


def save_checkpoint(folder: Path, step: Trainable, *, keep: int = 2) -> Path:
    """Write the state of a step; all ranks call it together.

    Args:
        folder: where checkpoints of this run are; shared by all ranks.
        step: what to save.
        keep: how many stay, at least 1: this one, and the newest of those with fewer steps.

    Returns:
        The checkpoint.

    Raises:
        FileError: it could not be written, for example because the disk is full. Earlier
            checkpoints are intact.
    """
    world = step.world
    name = f"step-{step.number:08d}"
    token = gather_objects(world, uuid.uuid4().hex[:8])[0]
    partial = folder / f".{name}-{token}"
    _together(world, lambda: _first_only(world, lambda: _make_room(folder, partial)))
    _write_tensors(partial / "data", step)
    mine = _together(world, lambda: _checksums(partial, rank=world.rank, size=world.size))
    files = tuple(sorted(entry for entries in mine for entry in entries))
    about = About(
        step=step.number,
        seed=step.deployment.seed,
        program_name=step.deployment.program.name,
        program_digest=step.deployment.program_digest,
        plan_digest=step.deployment.plan_digest,
        world_size=world.size,
        files=files,
    )
    _together(world, lambda: _first_only(world, lambda: _publish(partial, folder / name, about)))
    _together(world, lambda: _first_only(world, lambda: _prune(folder, step.number, keep)))
    return folder / name


def load_checkpoint(folder: Path, step: Trainable) -> About | None:
    """Read the newest whole checkpoint into a step; all ranks call it together.

    Args:
        folder: where checkpoints of this run are; shared by all ranks.
        step: takes the state and the number of steps done. Its plan and its number of ranks
            may differ from those that wrote the checkpoint.

    Returns:
        What was read; None if the folder holds no checkpoint.

    Raises:
        FileError: there are checkpoints, and none is whole.
        MismatchError: the newest whole one belongs to another program or another seed.
    """
    world = step.world
    candidates = gather_objects(world, stored_steps(folder))[0]
    damaged: list[str] = []
    for number in reversed(candidates):
        path = folder / f"step-{number:08d}"
        try:
            about = _together(world, lambda path=path: _verified(path, world))[0]
        except FileError as error:
            damaged.append(error.got)
            if world.is_first:
                _LOG.warning("checkpoint passed over: %s", error.got)
            continue
        _require_same_training(path, about, step)
        _read_tensors(path / "data", step)
        step.number = about.step
        return about
    if damaged:
        raise FileError(
            need=f"a whole checkpoint in {folder}",
            got="; ".join(damaged),
            hint="start without --resume, or restore the folder from a backup",
        )
    return None


def stored_steps(folder: Path) -> list[int]:
    """Steps of which a folder holds a checkpoint, in order."""
    if not folder.is_dir():
        return []
    return sorted(int(m[1]) for p in folder.iterdir() if (m := _NAME.fullmatch(p.name)))


def read_about(path: Path) -> About:
    """What a checkpoint holds.

    Raises:
        FileError: the description is missing, damaged, or of a newer version.
    """
    try:
        raw = json.loads((path / "about.json").read_text())
        version, checksum, plain = raw["weft_checkpoint"], raw["checksum"], raw["about"]
        is_whole = version == VERSION and checksum == digest(plain)
        about = _about(plain) if is_whole else None
    except (*_DAMAGE, WeftError) as error:
        raise FileError(
            need="a checkpoint with its description",
            got=f"{path.name}: {type(error).__name__}: {str(error)[:200]}",
            hint="use an earlier checkpoint",
        ) from error
    if about is None:
        raise FileError(
            need=f"a description of format {VERSION} with the checksum it was written with",
            got=f"{path.name}: format {version}, checksum {checksum}",
            hint="use an earlier checkpoint, or the version of weft that wrote it",
        )
    return about


_DAMAGE = (OSError, ValueError, KeyError, TypeError, RecursionError)
"""What reading a description raises that is not what was written."""


def _about(plain: dict[str, Any]) -> About:
    """The description, from its JSON; raises one of `_DAMAGE` if a field is not what it is."""
    files = tuple((str(path), int(size), int(crc)) for path, size, crc in plain["files"])
    about = About(**{**plain, "files": files})
    kinds = {f.name: int if f.type == "int" else str for f in fields(About) if f.name != "files"}
    for name, kind in kinds.items():
        if not isinstance(getattr(about, name), kind):
            raise TypeError(f"{name} is {getattr(about, name)!r}")
    return about


def _together(world: World, work: Callable[[], T]) -> list[T]:
    """Do something on every rank; if it fails on one, the same error rises on all."""
    failure: WeftError | None = None
    result: T | None = None
    try:
        result = work()
    except WeftError as error:
        failure = error
    except OSError as error:
        failure = FileError(
            need="files that can be read and written",
            got=f"{error.filename or 'checkpoint'}: {error.strerror or error}",
            hint="check space and permissions of the checkpoint folder",
        )
    outcomes = gather_objects(world, (result, failure))
    for _, error in outcomes:
        if error is not None:
            raise error
    return [value for value, _ in outcomes]  # pyright: ignore[reportReturnType]


def _first_only(world: World, work: Callable[[], None]) -> None:
    if world.is_first:
        work()


def _require_usable(folder: Path, *, resume: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise FileError(
            need="a folder for checkpoints",
            got=f"{folder}, which is a file",
            hint="name another one, for example runs/first",
        )
    stored = stored_steps(folder)
    if stored and not resume:
        raise FileError(
            need="a folder without checkpoints, for a run that starts from the beginning",
            got=f"{folder}, which holds step {', '.join(map(str, stored))} of an earlier run",
            hint="--resume to go on from there, or name another folder",
        )
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".probe-{uuid.uuid4().hex[:8]}"
    try:
        probe.write_text("weft\n")
    finally:
        probe.unlink(missing_ok=True)


def _make_room(folder: Path, partial: Path) -> None:
    """Remove what kills have left, and make the folder to write into."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".step-*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    (partial / "data").mkdir(parents=True)


def _write_tensors(data: Path, step: Trainable) -> None:
    world = step.world
    try:
        with _one_process_is_meant():
            dcp.save(
                dict(step.stored()),
                storage_writer=dcp.FileSystemWriter(data),
                process_group=world.control,
                no_dist=world.is_alone,
            )
    except CheckpointException as error:
        raise _translated(error, f"{data.parent.name} written on every rank") from error


def _read_tensors(data: Path, step: Trainable) -> None:
    world = step.world
    try:
        # Loads in place: what is stored shares memory with the step's own parts.
        with _one_process_is_meant():
            dcp.load(
                dict(step.stored()),
                storage_reader=dcp.FileSystemReader(data),
                process_group=world.control,
                no_dist=world.is_alone,
            )
    except CheckpointException as error:
        raise _translated(error, f"the tensors of {data.parent.name}") from error


@contextmanager
def _one_process_is_meant() -> Iterator[None]:
    """Silence the guess, which torch reports even where it is told, that there is no group."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _translated(error: CheckpointException, need: str) -> FileError:
    """The first rank's cause; torch's own error is not an Exception and would pass by borders."""
    rank, (cause, _) = min(error.failures.items())
    return FileError(
        need=need,
        got=f"on rank {rank}: {type(cause).__name__}: {cause}",
        hint="check space and permissions of the checkpoint folder",
    )


def _checksums(path: Path, *, rank: int, size: int) -> list[tuple[str, int, int]]:
    """Path, size and CRC-32 of this rank's share of the data files."""
    files = sorted(p for p in (path / "data").rglob("*") if p.is_file())
    return [(p.relative_to(path).as_posix(), p.stat().st_size, _crc(p)) for p in files[rank::size]]


def _crc(path: Path) -> int:
    total = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            total = zlib.crc32(chunk, total)
    return total


def _publish(partial: Path, final: Path, about: About) -> None:
    """Give a written checkpoint its name."""
    plain = json.loads(json.dumps(asdict(about)))
    text = json.dumps({"weft_checkpoint": VERSION, "checksum": digest(plain), "about": plain})
    _write_durably(partial / "about.json", text + "\n")
    if final.exists():
        # The same step again, after a resume from an earlier one: the new state replaces it.
        _discard(final)
    partial.rename(final)
    _sync_folder(final.parent)
    pointer = final.parent / f".step-latest-{partial.name[-8:]}"
    _write_durably(pointer, final.name + "\n")
    pointer.replace(final.parent / "latest")


def _prune(folder: Path, published: int, keep: int) -> None:
    """Remove old checkpoints. Those with more steps were passed over, or are another run's."""
    reached = [number for number in stored_steps(folder) if number <= published]
    for number in reached[: -max(keep, 1)]:
        _discard(folder / f"step-{number:08d}")


def _discard(path: Path) -> None:
    """Remove a checkpoint; a kill in between leaves nothing that looks whole."""
    hidden = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    path.rename(hidden)
    shutil.rmtree(hidden)


def _write_durably(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _verified(path: Path, world: World) -> About:
    """The description of a checkpoint, this rank's share of whose files are as written."""
    about = read_about(path)
    for name, size, crc in about.files[world.rank :: world.size]:
        file = path / name
        if not file.is_file() or file.stat().st_size != size or _crc(file) != crc:
            raise FileError(
                need="data files as they were written",
                got=f"{path.name}: {name} is missing or damaged",
                hint="use an earlier checkpoint",
            )
    return about


def _require_same_training(path: Path, about: About, step: Trainable) -> None:
    held = (about.program_digest, about.seed)
    wanted = (step.deployment.program_digest, step.deployment.seed)
    if held != wanted:
        raise MismatchError(
            need=f"a checkpoint of program {step.deployment.program.name}, digest {wanted[0]}, "
            f"seed {wanted[1]}",
            got=f"{path} of program {about.program_name}, digest {held[0]}, seed {held[1]}",
            hint="resume with the workload that wrote it, or use another folder",
        )
