"""The thin seam to torch.distributed: who runs, on which device, and how ranks meet.

All that weft asks of torch.distributed beyond the collectives in the step is here: joining and
leaving, groups along mesh axes, and small exchanges of control data. A world of one rank has no
process group at all, and every function here works in it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from weft.core.errors import InputError, MismatchError, RunError
from weft.parallel.placement import Mesh
from weft.runtime.allocator import keep_freed_memory
from weft.runtime.place import Place

__all__ = [
    "DEFAULT_TIMEOUT_S",
    "World",
    "alone",
    "barrier",
    "device_mesh",
    "gather_objects",
    "join",
    "joined",
    "largest",
    "leave",
    "meet",
    "place_in",
    "require_agreement",
]

T = TypeVar("T")

DEFAULT_TIMEOUT_S = 300.0
"""How long a rank waits for the others before it gives the run up, unless told otherwise."""


@dataclass(frozen=True, kw_only=True)
class World:
    """The ranks of a run, seen from one of them.

    Attributes:
        rank, size: which of how many.
        device: where this rank computes.
        timeout_s: how long it waits for the others in one collective.
        store: shared key-value store; None in a world of one rank.
        store_rank: the rank that holds the store; -1 for the launcher.
        control: group for control data on the CPU; None in a world of one rank.
        error_file: where the launcher looks for this rank's last words; None if nowhere.
    """

    rank: int
    size: int
    device: torch.device
    timeout_s: float = DEFAULT_TIMEOUT_S
    store: dist.Store | None = field(default=None, repr=False)
    store_rank: int = -1
    control: dist.ProcessGroup | None = field(default=None, repr=False)
    error_file: Path | None = None

    @property
    def is_alone(self) -> bool:
        """True if there is no process group."""
        return self.store is None

    @property
    def is_first(self) -> bool:
        """True for the rank that writes files and speaks to people."""
        return self.rank == 0


def alone(device: torch.device | str = "cpu") -> World:
    """A world of one rank, without a process group.

    Example:
        >>> alone().size
        1
    """
    return World(rank=0, size=1, device=torch.device(device))


def join(
    environment: Mapping[str, str] | None = None,
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    meeting_s: float = DEFAULT_TIMEOUT_S,
    device: torch.device | str | None = None,
) -> World:
    """Meet the other ranks that torchrun started; a world of one rank where it did not.

    The process is a rank from then on: it keeps the memory of freed tensors for the next step.

    Args:
        environment: torchrun's variables: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT;
            the process's own if left out.
        timeout_s: how long a collective waits before the run is given up [s].
        meeting_s: how long to wait for the others to start [s].
        device: where to compute; the local rank's CUDA device if there is one, else the CPU.

    Raises:
        InputError: the variables are incomplete.
        RunError: some ranks did not come in time; the error names them.
    """
    given = os.environ if environment is None else environment
    keep_freed_memory()
    if "RANK" not in given:
        return alone(_device(device, 0))
    found = _read_environment(given)
    chosen = _device(device, int(given.get("LOCAL_RANK", found.rank)))
    store = _meet(found, meeting_s)
    control = _start_groups(found, store, chosen, timedelta(seconds=timeout_s))
    error_file = given.get("TORCHELASTIC_ERROR_FILE")
    return World(
        rank=found.rank,
        size=found.size,
        device=chosen,
        timeout_s=timeout_s,
        store=dist.PrefixStore("weft", store),
        store_rank=-1 if found.hosted else 0,
        control=control,
        error_file=Path(error_file) if error_file else None,
    )


def leave(world: World) -> None:
    """Wait for the others, then take the process groups down."""
    if not world.is_alone:
        barrier(world, "the end of the run")
        dist.destroy_process_group()


@contextmanager
def joined(
    environment: Mapping[str, str] | None = None,
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    meeting_s: float = DEFAULT_TIMEOUT_S,
    device: torch.device | str | None = None,
) -> Iterator[World]:
    """`join`, and `leave` when the block ends well.

    After an error the groups are left to the end of the process: taking them down would wait
    for ranks that may not come.
    """
    world = join(environment, timeout_s=timeout_s, meeting_s=meeting_s, device=device)
    yield world
    leave(world)


def device_mesh(world: World, mesh: Mesh) -> DeviceMesh | None:
    """Torch's device mesh with a process group along each axis; None in a world of one rank.

    Raises:
        MismatchError: the mesh has another number of devices than the world has ranks.
    """
    if mesh.num_devices != world.size:
        raise MismatchError(
            need=f"{mesh.num_devices} ranks for the plan's mesh {mesh}",
            got=f"{world.size} ranks",
            hint=f"start it with torchrun --nproc-per-node {mesh.num_devices}, or plan for "
            f"{world.size} devices",
        )
    if world.is_alone:
        return None
    names = tuple(f"axis{axis}" for axis in range(mesh.num_axes))
    return init_device_mesh(world.device.type, mesh.shape, mesh_dim_names=names)


def place_in(
    world: World,
    mesh: Mesh,
    devices: DeviceMesh | None,
    first: int = 0,
    homes: tuple[Mesh, ...] = (),
    meetings: Mapping[tuple[int, ...], str] | None = None,
) -> Place:
    """Where this rank stands in a mesh, whose first rank is `first`; see `Place` for the rest."""
    groups = tuple(
        devices.get_group(axis).group_name if devices is not None and size > 1 else ""
        for axis, size in enumerate(mesh.shape)
    )
    coordinate = mesh.coordinate(world.rank - first)
    return Place(
        mesh=mesh,
        coordinate=coordinate,
        device=world.device,
        groups=groups,
        homes=homes,
        meetings=meetings or {},
    )


def meet(
    world: World, mesh: Mesh, wanted: Collection[tuple[int, ...]]
) -> dict[tuple[int, ...], str]:
    """Process groups of some ranks along the first axis of a mesh; all ranks call it together.

    Args:
        world: the ranks.
        mesh: on which they are.
        wanted: positions along the first axis of those that meet.

    Returns:
        For each of them the name of the group that this rank is in, if it is in one.
    """
    found: dict[tuple[int, ...], str] = {}
    limit = timedelta(seconds=world.timeout_s)
    for members in sorted(wanted):
        for inner in range(mesh.stride(0)):
            ranks = [position * mesh.stride(0) + inner for position in members]
            group = dist.new_group(ranks, timeout=limit)
            if world.rank in ranks:
                assert isinstance(group, dist.ProcessGroup)
                found[members] = group.group_name
    return found


def barrier(world: World, what: str) -> None:
    """Wait until all ranks are here.

    Raises:
        RunError: some did not come within the time-out; the error names the first of them.
    """
    if world.control is None:
        return
    try:
        dist.monitored_barrier(world.control, timedelta(seconds=world.timeout_s))
    except RuntimeError as error:
        raise RunError(
            need=f"all {world.size} ranks at {what} within {world.timeout_s:g} s",
            got=str(error).splitlines()[0],
            hint="look at the output of the rank that is missing",
        ) from error


def gather_objects(world: World, value: T) -> list[T]:
    """One small picklable value from each rank, in order of rank."""
    if world.control is None:
        return [value]
    found: list[T] = [value] * world.size
    dist.all_gather_object(found, value, group=world.control)
    return found


def largest(world: World, value: int) -> int:
    """The largest of one small integer from each rank."""
    if world.control is None:
        return value
    tensor = torch.tensor(value)
    dist.all_reduce(tensor, dist.ReduceOp.MAX, group=world.control)
    return int(tensor)


def require_agreement(world: World, what: str, value: str) -> None:
    """Check that all ranks hold the same value.

    Raises:
        MismatchError: they do not; the error names this rank's value and the first other one.
    """
    values = gather_objects(world, value)
    for rank, other in enumerate(values):
        if other != values[0]:
            raise MismatchError(
                need=f"the same {what} on all ranks: {values[0]} as on rank 0",
                got=f"{other} on rank {rank}",
                hint="give every rank the same files and the same version of the recipe",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Environment:
    """What torchrun says to a rank."""

    rank: int
    size: int
    host: str
    port: int
    hosted: bool
    """True if torchrun's agent holds the store, else rank 0 does."""
    attempt: str


def _read_environment(given: Mapping[str, str]) -> _Environment:
    try:
        return _Environment(
            rank=int(given["RANK"]),
            size=int(given["WORLD_SIZE"]),
            host=given["MASTER_ADDR"],
            port=int(given["MASTER_PORT"]),
            hosted=given.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
            attempt=given.get("TORCHELASTIC_RESTART_COUNT", "0"),
        )
    except (KeyError, ValueError) as error:
        raise InputError(
            need="torchrun's variables RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT",
            got=f"{type(error).__name__}: {error}",
            hint="start the ranks with torchrun",
        ) from None


def _device(given: torch.device | str | None, local_rank: int) -> torch.device:
    if given is not None:
        return torch.device(given)
    if torch.cuda.is_available():
        return torch.device("cuda", local_rank)
    return torch.device("cpu")


def _meet(found: _Environment, meeting_s: float) -> dist.Store:
    """The store, once every rank has been seen in it."""
    limit = timedelta(seconds=meeting_s)
    try:
        store = dist.TCPStore(
            found.host,
            found.port,
            is_master=found.rank == 0 and not found.hosted,
            timeout=limit,
            wait_for_workers=False,
        )
    except RuntimeError as error:
        raise _absent(found, meeting_s, "the store, which rank 0 or torchrun holds") from error
    # A restarted run meets in the same store and must not read what the last attempt left.
    attempt = dist.PrefixStore(f"attempt{found.attempt}", store)
    keys = [f"here/{rank}" for rank in range(found.size)]
    attempt.set(keys[found.rank], "1")
    try:
        attempt.wait(keys, limit)
    except RuntimeError as error:
        absent = [str(rank) for rank, key in enumerate(keys) if not attempt.check([key])]
        raise _absent(found, meeting_s, f"rank {', '.join(absent)}") from error
    return attempt


def _absent(found: _Environment, meeting_s: float, who: str) -> RunError:
    return RunError(
        need=f"{found.size} ranks at {found.host}:{found.port} within {meeting_s:g} s",
        got=f"no sign of {who}",
        hint="start all ranks with torchrun, and look at the output of those that are missing",
    )


def _start_groups(
    found: _Environment, store: dist.Store, device: torch.device, limit: timedelta
) -> dist.ProcessGroup:
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        store=dist.PrefixStore("groups", store),
        rank=found.rank,
        world_size=found.size,
        timeout=limit,
        device_id=device if on_gpu else None,
    )
    control = dist.new_group(backend="gloo", timeout=limit) if on_gpu else dist.group.WORLD
    assert isinstance(control, dist.ProcessGroup)
    return control
