"""Chapter 1: convergence of the loss landscape."""
