"""The one module through which torchvision is imported.

torchvision's usual build is compiled against CUDA. Beside a CPU-only torch its operators cannot be loaded, and
``import torchvision`` fails as soon as it describes one of them. None of the missing operators (non-maximum
suppression of boxes) is needed here, so declaring them, with no implementation, is enough for the rest to work.
"""

from __future__ import annotations

import sys

import torch

try:
    import torchvision
except RuntimeError as error:
    if "operator torchvision::" not in str(error):
        raise
    # The next import would find the submodules that the failed one left, and not attach them to the package.
    for module in [module for module in sys.modules if module.split(".")[0] == "torchvision"]:
        del sys.modules[module]
    # An operator lives as long as the library object that declared it.
    _operators = torch.library.Library("torchvision", "FRAGMENT")
    for _operator in ("nms", "qnms"):
        _operators.define(f"{_operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

__all__ = ["torchvision"]
