"""Named data sets: where they are, whether they are whole, and how they become tensors."""
