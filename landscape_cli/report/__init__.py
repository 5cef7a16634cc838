"""``landscape report``: what was drawn, beside what was published, for a reader who was not there."""
