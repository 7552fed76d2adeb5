"""The arithmetic that normalisers share: moments, layouts, kernels, running averages."""
