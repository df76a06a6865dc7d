"""`binarize.study`: many trainings of one question, from a grid file to one table and one plot.

keys.py      what a grid file may hold
chain.py     cumulative chains
files.py     the files that a grid names
grid.py      a grid file, read and changed by the command line
trial.py     one training of the grid: its settings, its name, what tells it from all others
expand.py    the grid as trials
network.py   the float network of a trial: its weights, pruning, dropout before the classifier
images.py    its images
run.py       one trial, carried out
cluster.py   many trials, handed to Ray
memory.py    the most memory a process held
results.py   what trials came to: a file of JSON lines, and rows over seeds
table.py     those rows as a table
plot.py      and as a picture
study.py     the one call
"""

from __future__ import annotations

__all__: list[str] = []
