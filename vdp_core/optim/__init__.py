"""The fit loop, what it fits and what it minimises."""
