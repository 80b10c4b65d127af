"""Auto-MAP: plans by deep Q-learning, on the same propagation and the same simulator as others."""
