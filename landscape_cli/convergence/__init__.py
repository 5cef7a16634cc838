"""How the empirical loss L_k settles as objects are added (thesis 1.3): per-object losses, differences, gradients."""
