"""Verbs on any nn.Module: hooks, copies, modes, outputs, tensors, places.

child_names.py  refuses a model of which a part cannot be reached by its name
copies.py       copies of a model, with weights of its own or without data
float_check.py  refuses what is no plain float model
hooks.py        hooks of a model: where they are kept, silenced for a while
modes.py        a model in evaluation mode for a while, and left as it was
outputs.py      what a model gives, as lists, tuples and dicts
places.py       a module put at each place where another one stands
recurrent.py    a recurrent layer from a file
tensors.py      the tensors of a model: each once, which are tied, and their digest
"""
