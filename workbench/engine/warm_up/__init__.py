"""Serving at once on a GPU: kernels are compiled beside the engine and captured between its steps."""
