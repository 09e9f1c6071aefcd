"""`workbench keys ...`: who may use the endpoint."""
