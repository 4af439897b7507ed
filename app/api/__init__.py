"""The HTTP edge: parses requests, calls one service or the registry, writes answers."""
