"""The fast form of a packed model.

float_conv.py   float convolutions of a packed model
float_steps.py  float convolutions of a traced model: what they take along, and how their images lie
fuse.py         a packed model -> the same model with fewer passes over memory
steps.py        the steps of a traced model: what one calls, its shape, who reads it
trace.py        a packed model -> the steps that it takes; what cannot be traced stays one step
"""
