"""Which parameters of a network can go: orders of removal, removal curves, noise of the output, freezing (thesis 4.1).

For any stack of R networks with P parameters as vectors (R, P). Scores are computed by :mod:`.orders` from what is
known of the parameters: Hessian diagonal (:mod:`landscape_cli.curvature`), posterior (:mod:`.posterior`), covariance of
gradients (:mod:`.gradients`); :mod:`.removal` takes the lowest away.
"""
