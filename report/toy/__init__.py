"""The report of a toy suite. May import analysis, render and page."""
