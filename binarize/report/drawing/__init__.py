"""A report drawn as text, Markdown, HTML and tables."""
