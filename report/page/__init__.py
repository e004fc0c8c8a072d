"""What a suite's report shows: tables, charts, words and the sections they stand in. May import analysis and render."""
