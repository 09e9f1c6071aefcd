"""`workbench cache ...`: quantised models that are kept on disk."""
