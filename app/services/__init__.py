"""The use cases, one file each; every way in (HTTP, command line, streams) calls the same ones."""
