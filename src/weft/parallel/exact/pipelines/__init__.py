"""The search over pipelines: groups, micro-batches, placements, stages and recomputation."""
