"""The thesis's theorems as functions: every bound as printed and as it holds, explicit factorisations, sample sizes.

:mod:`~landscape_cli.bounds.chains`: fully connected and convolutional networks (Theorems 4-6, 8, 9, 11-16);
:mod:`~landscape_cli.bounds.attention`: self-attention and transformer block (7, 17, 22, 23, 26);
:mod:`~landscape_cli.bounds.blocks`: derivatives as explicit matrices (18-21, 24, 25);
:mod:`~landscape_cli.bounds.sample_size`: Gaussian posteriors (27-30). The factorisation of Theorem 10 is in
:mod:`landscape_cli.curvature.chain`.
"""
