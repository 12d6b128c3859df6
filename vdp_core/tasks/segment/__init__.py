"""The task segment."""
