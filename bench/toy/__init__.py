"""Two-parameter policies that the same methods train in milliseconds. May import methods, suite and records."""
