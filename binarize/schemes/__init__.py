"""A method as data: its parts, its scheme and its recipe."""
