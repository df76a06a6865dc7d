"""What a plan records beside its decisions, as data that is written and read back.

capture.py     how the model was seen, and what was made of it since
edit.py        what all edits are: a place, a kind, arguments
edit_kinds.py  the edits: one class a kind, complete when made
former.py      what plans of earlier versions said in words and dictionaries
origin.py      where the values in front of a layer come from
"""
