"""Scores of a model and how alike two models are."""
