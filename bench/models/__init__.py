"""The base model and its adapter, the two objectives, and the fast paths of both. May import data, records and settings."""
