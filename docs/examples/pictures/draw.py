"""Make a small folder of PNG pictures from scikit-learn's digits: ``python -m pictures.draw FOLDER``."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def draw(folder, classes=3):
    """Write ``FOLDER/{train,test}/CLASS/NUMBER.png``, 32 x 32 pixels, every fifth picture for the test."""
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        if label < classes:
            place = Path(folder) / ("test" if number % 5 == 0 else "train") / str(label)
            place.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray((pixels * 255 / 16).astype(np.uint8)).convert("RGB")
            picture.resize((32, 32), Image.Resampling.BICUBIC).save(place / f"{number:04}.png")


if __name__ == "__main__":
    draw(sys.argv[1])
