"""Layers and rules -> plan. No tensor is touched here."""
