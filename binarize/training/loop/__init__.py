"""Pieces that are usable in any training loop."""
