"""A job's folder: its schema, how it is written and read, and what its figures mean. Standard library and errors only."""
