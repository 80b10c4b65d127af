"""A proxy in front of a provider in OpenAI's form: reserves, forwards, settles, keeps account."""

from __future__ import annotations

from weft.tokens.proxy.settings import Settings

__all__ = ["Settings"]
