"""A grid file -> trials.

chain.py   cumulative chains: "+WD" adds the settings of the step WD to all before it
expand.py  a grid as trials: every choice of every axis with every other, for every seed
files.py   files that a grid names: where they lie, and what is in them
keys.py    what a grid file may hold: the settings of a trial, and how they become many
read.py    a grid file, read: checked settings, axes of choices, seeds
trial.py   one training of a study
words.py   what a grid file names, held against what a file may name and what the user said in this call
"""
