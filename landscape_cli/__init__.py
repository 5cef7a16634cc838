"""The engine: data, models, training, measurement, storage and plotting. It knows nothing of the thesis."""

__version__ = "0.1.0"
