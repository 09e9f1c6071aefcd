"""A decode step of one row as a single CUDA kernel that reads weights without a pause."""
