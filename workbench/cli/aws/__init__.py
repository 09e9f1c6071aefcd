"""`workbench aws ...`: which instance, at what cost, set up how."""
