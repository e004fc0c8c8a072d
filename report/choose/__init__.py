"""The recipe that is best by a user's own words. May import analysis and render."""
