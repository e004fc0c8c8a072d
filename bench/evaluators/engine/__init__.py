"""Answers from a server beside the run: its requests, its adapters, and the check that it used them."""
