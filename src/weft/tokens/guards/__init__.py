"""Guards: what money is not to be lost to, and how it is noticed in time."""

from __future__ import annotations

from weft.tokens.guards.breaker import (
    Baseline,
    Breaker,
    Scale,
    Spend,
    Verdict,
    blocks,
    learn_baseline,
)
from weft.tokens.guards.cycles import Again, Cycles, CycleVerdict, learn_again, tool_name
from weft.tokens.guards.encoders import Encoder, TiktokenEncoder, TokenizersEncoder, open_encoder
from weft.tokens.guards.inspection import (
    Inspection,
    SecurityPrice,
    best_interval,
    inspection_usd,
    security_price,
)
from weft.tokens.guards.odds import Odds, chance_bound, learn_odds
from weft.tokens.guards.signature import ToolCall, signature
from weft.tokens.guards.tokenisation import TokenAudit, TokenVerdict, hidden_tokens
from weft.tokens.guards.wallet import Bucket, Limits, Refused, derive_limits, earn, settle, take

__all__ = [
    "Again",
    "Baseline",
    "Breaker",
    "Bucket",
    "CycleVerdict",
    "Cycles",
    "Encoder",
    "Inspection",
    "Limits",
    "Odds",
    "Refused",
    "Scale",
    "SecurityPrice",
    "Spend",
    "TiktokenEncoder",
    "TokenAudit",
    "TokenVerdict",
    "TokenizersEncoder",
    "ToolCall",
    "Verdict",
    "best_interval",
    "blocks",
    "chance_bound",
    "derive_limits",
    "earn",
    "hidden_tokens",
    "inspection_usd",
    "learn_again",
    "learn_baseline",
    "learn_odds",
    "open_encoder",
    "security_price",
    "settle",
    "signature",
    "take",
    "tool_name",
]
