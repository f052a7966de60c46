"""From a checkpoint to what Triton serves: ONNX graphs and TensorRT engines, proven equal."""
