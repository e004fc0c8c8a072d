"""How long work takes: by earlier records of the machine, by what a plan holds, and what is left of a run under way."""
