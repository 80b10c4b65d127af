"""The reference evaluator: programs on NumPy arrays."""

from weft.program.evaluate.run import apply_operator, evaluate, evaluate_nodes

__all__ = ["apply_operator", "evaluate", "evaluate_nodes"]
