"""Useful plugins that come with the workbench, off until they are enabled. Each is written as anybody's would be."""
