"""Files and the hub into rows, rows into tokens; the built-in world. May import settings, methods and records."""
