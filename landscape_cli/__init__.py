"""The engine: data, models, training, measurement, storage and plotting. It knows nothing of the thesis.

Its measurements as functions, for any network and data: :mod:`landscape_cli.api`. They are loaded when they are asked
for, so that importing this package takes no time.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from landscape_cli.api import (
        bound,
        hessian_spectrum,
        landscape_measure,
        loss_difference_curve,
        sufficient_sample_size,
    )

__version__ = "0.1.0"
__all__ = ["bound", "hessian_spectrum", "landscape_measure", "loss_difference_curve", "sufficient_sample_size"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from landscape_cli import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
