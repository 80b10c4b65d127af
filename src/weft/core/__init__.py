"""Words that every part shares: errors, units, provenance, digests and records. No torch."""

from weft.core.digest import canonical_json, digest
from weft.core.errors import (
    CaptureError,
    FileError,
    InfeasibleError,
    InputError,
    MismatchError,
    RuleError,
    RunError,
    VerifyError,
    WeftError,
)
from weft.core.provenance import Origin, Quantity, derived, measured, ported
from weft.core.records import Record, RecordLog, read_records
from weft.core.units import format_bytes, format_count, format_seconds, parse_bytes

__all__ = [
    "CaptureError",
    "FileError",
    "InfeasibleError",
    "InputError",
    "MismatchError",
    "Origin",
    "Quantity",
    "Record",
    "RecordLog",
    "RuleError",
    "RunError",
    "VerifyError",
    "WeftError",
    "canonical_json",
    "derived",
    "digest",
    "format_bytes",
    "format_count",
    "format_seconds",
    "measured",
    "parse_bytes",
    "ported",
    "read_records",
]
