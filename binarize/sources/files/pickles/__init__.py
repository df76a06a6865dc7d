"""Pickles, read without doing anything that they say.

allow_list.py      what a pickle may name
inert.py           what a pickle says, as records that do nothing
instance_dicts.py  what an object from a file may hold in its instance dictionary
numpy_makers.py    arrays and numbers of numpy, made of their bytes
pickle_scan.py     reads a pickle without doing anything it says
plain_makers.py    the closed list of functions that a pickle may name to make plain values
rebuild.py         objects made of what a pickle says, by a closed list of makers
records.py         the parts of a `torch.save` file: its pickle, read inertly, and the data of its tensors
stack_machine.py   the stack of a pickle, and the instructions that do not reach outside
stored_tensors.py  tensors made of what a pickle says of them, each inside its storage
"""
