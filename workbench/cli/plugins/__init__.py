"""`workbench plugins ...`: what is installed, switched on, and new."""
