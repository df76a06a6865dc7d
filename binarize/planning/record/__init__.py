"""What a plan records beside its decisions, as data that is written and read back.

edit_kinds.py  the edits: one class a kind, complete when made
origin.py      where the values in front of a layer come from
"""
