"""Exports trained models as StableHLO, ONNX, or weights for torchvision."""
