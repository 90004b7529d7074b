"""The heavy half of a model's life: checkpoints to ONNX, training, precision. Only here is torch imported."""
