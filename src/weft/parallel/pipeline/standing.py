"""Which ranks each group of devices of a pipeline stands on.

The ranks of a group are neighbours, and groups fill the ranks without a gap: block after block. A
standing says for each group which of these blocks is its own, so that the first stage need not be
where the first ranks are.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from weft.core.errors import InputError

__all__ = ["in_rank_order", "ranks_in_words", "ranks_of_groups", "require_standing"]


def in_rank_order(num_groups: int) -> tuple[int, ...]:
    """The standing of groups that follow each other as their ranks do."""
    return tuple(range(num_groups))


def require_standing(standing: Sequence[int], num_groups: int) -> None:
    """Check that each group stands on a block of its own.

    Raises:
        InputError: it is no permutation of the groups.
    """
    if sorted(standing) != list(range(num_groups)):
        raise InputError(
            need=f"a standing that names each block of ranks from 0 to {num_groups - 1} once, "
            "in the order of the groups",
            got=f"{', '.join(map(str, standing))}",
            hint="1,0 puts the first of two groups on the last ranks; leave it out for the order "
            "of ranks",
        )


def ranks_of_groups(sizes: Sequence[int], standing: Sequence[int]) -> tuple[range, ...]:
    """The ranks of each group.

    Args:
        sizes: devices of each group.
        standing: of each group, which block of ranks it stands on.

    Raises:
        InputError: the standing is no permutation of the groups.

    Example:
        >>> ranks_of_groups((1, 2), (1, 0))
        (range(2, 3), range(0, 2))
    """
    require_standing(standing, len(sizes))
    group_on = sorted(range(len(sizes)), key=standing.__getitem__)
    starts = accumulate((sizes[group] for group in group_on), initial=0)
    found = {
        group: range(start, start + sizes[group])
        for group, start in zip(group_on, starts, strict=False)
    }
    return tuple(found[group] for group in range(len(sizes)))


def ranks_in_words(ranks: range) -> str:
    """Ranks that are neighbours, for people.

    Example:
        >>> ranks_in_words(range(4, 8)), ranks_in_words(range(4, 5))
        ('ranks 4 to 7', 'rank 4')
    """
    one = len(ranks) == 1
    return f"rank {ranks.start}" if one else f"ranks {ranks.start} to {ranks.stop - 1}"
