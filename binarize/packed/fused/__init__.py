"""The fast form of a packed model.

float_conv.py  float convolutions of a packed model
fuse.py        a packed model -> the same model with fewer passes over memory
trace.py       a packed model -> the steps that it takes; what cannot be traced stays one step
"""
