"""Sharding rules: what one mesh axis may do to each operator."""

from weft.parallel.rules.book import RuleBook
from weft.parallel.rules.rule import Rule
from weft.parallel.rules.table import rules

__all__ = ["Rule", "RuleBook", "rules"]
