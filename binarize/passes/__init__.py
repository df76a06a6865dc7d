"""The plan's edits carried out: on modules at their paths (swap, norm, nonlinearity) and on traced containers.

front.py         pooling or BatchNorm in front of a layer that stays float
generated.py     a module's `forward` replaced by generated code, its object kept
moments.py       means and variances per channel that a model's parameters promise for its values
nonlinearity.py  activations in front of a sign give way to the scheme's nonlinearity, or go
norm.py          BatchNorm for layers that none follows
rewrite.py       carry a plan out on a copy of the model
shortcut.py      real values around binary layers, added in a container's graph
swap.py          put a binary layer in place of a float one
"""
