"""From the engine's chunks to what goes over the wire, one file a route."""
