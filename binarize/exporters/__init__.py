"""A packed model as a file for another runtime."""
