"""The fast form of a packed model.

float_conv.py  float convolutions of a packed model
fuse.py        a packed model -> the same model with fewer passes over memory
"""
