"""What is checked of a converted model.

checks.py      what every conversion is checked for before anybody gets it
hooks.py       the user's hooks that a converted model no longer runs
liveness.py    whether a converted network still depends on its input
two_values.py  whether the binarizers of a converted model give two values
"""
