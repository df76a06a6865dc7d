"""What each binary layer carries.

choose.py       norm, threshold, shortcut and activation of every layer, and their words and counts
homes.py        where new activations hang that only the graph can reach
layer_parts.py  what the plan says of the parts of one layer
"""
