"""A report drawn as text, Markdown, HTML and tables.

console.py   the one way of text to a terminal
html.py      the report as one self-contained HTML file
markdown.py  the report as Markdown: every layer in a table, for a repository or a model card
table.py     the table of layers at a given width: which columns fit, and which layers share a line
terminal.py  the report for a terminal
"""
