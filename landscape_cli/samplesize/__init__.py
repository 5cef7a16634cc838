"""Sufficient sample sizes: the nine classical methods and the thesis's D, M, KL and S (chapter 3)."""
