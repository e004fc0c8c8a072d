"""bench: choose a post-training recipe by measuring what it gains, forgets and costs."""

__version__ = "0.1.0"
