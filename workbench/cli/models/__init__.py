"""`workbench models`: one command a file."""
