"""The task dehaze."""
