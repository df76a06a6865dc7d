"""A converted model on disk."""
