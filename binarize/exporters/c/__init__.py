"""Plain C99 of a packed model.

calls.py     steps -> lines of C: the call of each step, with its places in memory
check.py     the C file compiled and run
elementwise.py  functions of each number and its channel, as steps in C
floats.py    what has no weights to pack, as steps in C
graph.py     a packed model -> the steps of its C file
in_order.py  float sums in the order of their indices
layers.py    layers with weights as steps in C: packed layers, and those that stay float
memory.py    where each value lies: as little memory as the values that are alive at the same time need
recorded.py  a packed model recorded on one sample
signs.py     where signs are read
steps.py     what the C file will do, as data: values in memory, and steps that read some and write one
tables.py    the constants of a C file
text.py      steps with their places in memory -> the text of one C file
views.py     operations that only move numbers
write.py     one self-contained C99 file for a microcontroller: weights, integer thresholds, popcount loops
"""
