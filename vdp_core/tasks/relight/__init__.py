"""The task relight."""
