"""The fast form of a packed model."""
