"""The main path: one training loop for every method (loop.py), with its batches, losses, checkpoints and ranks.

May import models, data, methods, collectors and records.
"""
