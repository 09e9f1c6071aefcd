"""What goes over the wire, as pydantic models: no other place defines any."""
