"""Numbers from records: figures, estimates, tests, verdicts on differences. May import records only."""
