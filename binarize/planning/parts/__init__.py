"""What each binary layer carries, and what is put in front of float ones.

around.py       what the parts follow from, beside the graph
choose.py       norm, threshold, shortcut and activation of every layer, and their words and counts
fronts.py       pooling or BatchNorm in front of a layer that stays float
homes.py        where new activations hang that only the graph can reach
layer_parts.py  what the plan says of the parts of one layer
mean_path.py    what lies between a layer that yields means of random signs and those that read it
random_signs.py which layers can hand on means of random signs, and what gives way around them
"""
