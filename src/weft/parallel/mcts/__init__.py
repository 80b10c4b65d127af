"""Plans for uneven machines, by tree search over groups of operators."""
