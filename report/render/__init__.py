"""A document into HTML and Markdown, numbers into text. Imports nothing of this project but errors."""
