"""Noise: how strong it is, and a clip without it."""
