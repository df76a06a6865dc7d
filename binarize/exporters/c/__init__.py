"""Plain C99 of a packed model."""
