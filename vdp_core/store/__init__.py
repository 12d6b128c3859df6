"""Clips that do not fit in memory, files that are whole or absent, and what long work has found so far."""
