"""ONNX and QONNX of a packed model."""
