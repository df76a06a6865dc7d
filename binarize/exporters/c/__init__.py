"""Plain C99 of a packed model.

activations.py  torch's functions of each number by their names
apart.py        operations taken apart into simpler ones of torch: norms, deviations
arithmetic.py   functions of one, two or three numbers, as C and as torch
attention.py    attention, and sums of products by letters, as matrix products
call.py         one recorded operation on its way to steps
calls.py        steps -> lines of C: the call of each step, with its places in memory
check.py        the C file compiled and run
elementwise.py  functions of each number and its channel, as steps in C
graph.py        a packed model -> the steps of its C file
in_order.py     float sums in the order of their indices
layer_calls.py  the calls of layers with a window
layers.py       packed layers as steps in C
memory.py       where each value lies: as little memory as the values that are alive at the same time need
names.py        operations that need no code or only move numbers, and what is said of those that have none
operations.py   the operations that C code is written for
pools.py        average pools with their sums in order
ports.py        the arguments of the C function
recorded.py     a packed model recorded on one sample
reductions.py   sums, means, extremes, norms and matrix products as steps in C
resample.py     interpolation as weighted sums along one axis after the other
signs.py        where signs are read
steps.py        what the C file will do, as data: values in memory, and steps that read some and write one
sums.py         torch's sums in the order of their indices
table.py        the table of operations in the documents
tables.py       the constants of a C file
text.py         steps with their places in memory -> the text of one C file
transcendental.py  exponential, logarithm and their kin of products and sums alone
views.py        operations that only move numbers
windows.py      float convolutions, pools and interpolations as steps in C
words.py        words of the calls in a C file
write.py        one self-contained C99 file for a microcontroller: weights, integer thresholds, popcount loops
"""
