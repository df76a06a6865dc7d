"""Scores of a model and how alike two models are.

classes.py      which output of a model a class folder belongs to
correlation.py  how alike the outputs of two models' layers are
scores.py       what an evaluation found, as data
tally.py        what a model gets right, counted batch after batch
"""
