"""How many blocks a processor holds, and what a GPU is for the planner."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.fusion.cost import host_like
from weft.fusion.device import A100, H100, Usage, blocks_per_processor, device_like, steps_apart

usages = st.builds(
    Usage,
    registers=st.integers(16, 255),
    shared_bytes=st.integers(0, 160_000),
    warps=st.sampled_from([1, 2, 4, 8]),
)


# From the CUDA Occupancy Calculator, compute capability 8.0 and 9.0.
@pytest.mark.parametrize(
    ("registers", "shared", "warps", "blocks"),
    [
        (32, 0, 4, 16),
        (40, 0, 4, 12),
        (64, 0, 8, 4),
        (128, 0, 16, 1),
        (255, 0, 8, 1),
        (24, 0, 1, 32),
    ],
)
def test_registers_and_warps_limit_blocks(registers, shared, warps, blocks):
    usage = Usage(registers=registers, shared_bytes=shared, warps=warps)
    assert blocks_per_processor(usage, H100) == blocks_per_processor(usage, A100) == blocks


def test_shared_memory_limits_blocks_and_h100_has_more():
    usage = Usage(registers=32, shared_bytes=40 * 1024, warps=4)
    assert blocks_per_processor(usage, A100) == 4
    assert blocks_per_processor(usage, H100) == 5


@given(usages, st.integers(0, 64), st.integers(0, 10_000))
def test_what_takes_more_has_no_more_blocks(usage, registers, shared):
    more = Usage(
        registers=min(usage.registers + registers, 255),
        shared_bytes=usage.shared_bytes + shared,
        warps=usage.warps,
    )
    assert blocks_per_processor(more, H100) <= blocks_per_processor(usage, H100)


@given(usages, usages)
def test_steps_are_none_to_itself_and_the_same_both_ways(one, other):
    assert steps_apart(one, one, H100) == 0
    if one.warps == other.warps:
        assert steps_apart(one, other, H100) == steps_apart(other, one, H100)


def test_eight_registers_more_are_a_step():
    usages = [Usage(registers=r, shared_bytes=0, warps=4) for r in (32, 40, 48)]
    assert steps_apart(usages[0], usages[1], H100) == 1
    assert steps_apart(usages[0], usages[2], H100) == 2


def test_newer_gpus_have_the_figures_of_the_newest_known_and_older_ones_none():
    assert device_like(80) == device_like(86) == A100
    assert device_like(90) == device_like(100) == H100
    with pytest.raises(InputError, match=r"8\.0 or newer"):
        device_like(75)


def test_a_gpu_is_never_planned_for_one_processor_alone():
    host = host_like(H100)
    assert host.threads == 132 and host.alone_bytes == 0
    assert host.bytes_per_ns(1e6) > host.bytes_per_ns(1e9) == 3350.0
