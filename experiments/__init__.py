"""What the thesis did, one module a family, and what goes beyond it."""
