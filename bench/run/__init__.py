"""Carry a plan out: worker processes, what each kind of job does, what is checked before. May import all but the command line."""
