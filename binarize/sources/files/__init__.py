"""Files of weights and models, read without running code from them.

allow_list.py      what a pickle may name
inert.py           what a pickle says, as records that do nothing
instance_dicts.py  what an object from a file may hold in its instance dictionary
kinds.py           what a file is, read from its bytes and never from its suffix; and its checksums
pickle_scan.py     reads a pickle without doing anything it says
plain_makers.py    the closed list of functions that a pickle may name to make plain values
rebuild.py         objects made of what a pickle says, by a closed list of makers
records.py         the parts of a `torch.save` file: its pickle, read inertly, and the data of its tensors
safe_pickle.py     reads `torch.save` files without running code from them
stored_tensors.py  tensors made of what a pickle says of them, each inside its storage
"""
