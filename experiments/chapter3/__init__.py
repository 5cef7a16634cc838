"""Sufficient sample size (thesis, chapter 3)."""
