"""``vdp evaluate``: a task over the clips of a data set, measured against the truth."""
