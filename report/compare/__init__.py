"""Two results folders held against each other, and the gate. May import analysis and render."""
