"""The ledger: every call once, with tokens by class, and what they add up to."""

from __future__ import annotations

from weft.tokens.ledger.ingest import Ingested, ingest
from weft.tokens.ledger.ledger import Bad, Ledger, Progress

__all__ = ["Bad", "Ingested", "Ledger", "Progress", "ingest"]
