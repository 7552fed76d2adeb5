"""Kernel transforms: what stands between a learnt kernel and the one that a layer uses."""
