"""Making models smaller (thesis, chapter 4)."""
