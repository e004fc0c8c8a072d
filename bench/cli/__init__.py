"""The commands, their progress and their words. May import everything; nothing heavy at the top."""
