"""One graph over many clips: what there is to do, where it is done, and what came of it."""
