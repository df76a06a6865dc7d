"""Packed models timed beside the best that float is given."""
