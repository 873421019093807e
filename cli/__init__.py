"""The command line of geomkit: each command parses, calls the library, writes."""
