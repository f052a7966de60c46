"""The network and how it learns: PyTorch, on top of `matting`, below `export`."""
