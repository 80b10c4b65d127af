"""Pipelines: micro-batches, stages, and the order in which stages work."""
