"""A suite as jobs keyed by a content hash, with the work they share; pure, no torch.

May import suite, toy, and what finds data and models.
"""
