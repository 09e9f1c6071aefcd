"""The tabs of the app, one a file."""
