"""Classes of tokens: a partition, so that each token is counted once and priced once.

Providers count sets that overlap, each in its own way: cached tokens inside of the input or beside
it, reasoning inside of the output or beside it. Here every token lies in exactly one leaf, and what
a provider calls input is a sum of leaves.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["INPUT", "OUTPUT", "TokenClass"]


class TokenClass(StrEnum):
    """One leaf. Values are what files and databases hold."""

    FRESH = "fresh"
    """Text that was sent and neither read from a cache nor written to one."""
    CACHE_READ = "cache_read"
    CACHE_WRITE_5M = "cache_write_5m"
    """Written to a cache that forgets it after five minutes."""
    CACHE_WRITE_1H = "cache_write_1h"
    TOOL = "tool"
    """What a provider's own tools put into the prompt: results of its search, for example."""
    AUDIO_IN = "audio_in"
    AUDIO_CACHE_READ = "audio_cache_read"
    IMAGE_IN = "image_in"
    VIDEO_IN = "video_in"
    TEXT = "text"
    """What is answered, tool calls included."""
    REASONING = "reasoning"
    """Generated, billed and mostly not shown."""
    AUDIO_OUT = "audio_out"
    IMAGE_OUT = "image_out"
    REJECTED = "rejected"
    """Predicted by the caller, not accepted, and billed as output."""


OUTPUT = frozenset(
    {
        TokenClass.TEXT,
        TokenClass.REASONING,
        TokenClass.AUDIO_OUT,
        TokenClass.IMAGE_OUT,
        TokenClass.REJECTED,
    }
)
"""Leaves that a model generates."""
INPUT = frozenset(TokenClass) - OUTPUT
"""Leaves that a model reads."""
