"""Source code from schedules."""
