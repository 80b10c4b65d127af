"""How a program is split over devices: placements, rules, planners, lowering."""
