"""Layers changed by a person, and put together again."""
