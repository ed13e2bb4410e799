"""Frozen encoders as files that other software reads: ONNX, StableHLO, safetensors, PyTorch."""
