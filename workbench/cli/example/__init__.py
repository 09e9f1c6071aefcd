"""`workbench example NAME`: one command a file."""
