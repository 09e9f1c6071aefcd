"""What goes over the wire, as pydantic models: the only place where they are used."""
