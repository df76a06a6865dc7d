"""`binarize.study`: many trainings of one question, from a grid file to one table and one plot.

cluster.py         many trials, handed to Ray
images.py          its images
memory.py          the most memory a process held
network.py         the float network of a trial: its weights, pruning, dropout before the classifier
plot.py            and as a picture
results.py         what trials came to: a file of JSON lines, and rows over seeds
results_schema.py  what a line of results.jsonl may say, and the result that a trial's finetune.json holds
run.py             one trial, carried out
study.py           the one call
table.py           those rows as a table
grid/              a grid file -> trials
"""

from __future__ import annotations

__all__: list[str] = []
