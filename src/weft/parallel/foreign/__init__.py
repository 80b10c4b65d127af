"""Plans of other systems: placements by name, completed and judged like any other plan."""
