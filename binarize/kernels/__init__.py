"""Operators on bits, and the native code below them."""
