"""A converted model on disk.

data_schema.py    what data read from a file of ours may be
edit_schema.py    what the edits of a saved plan may hold
fingerprint.py    what a saved model is recognized by
float_model.py    the float model that a saved one was made from, built again
load.py           a converted model read from disk, bit-equal
migrations.py     the version of what lands on disk
record.py         binarize.json: what a saved model is, how it was made, and by what it is recognized
record_schema.py  what binarize.json may hold, key by key, in the newest format
save.py           a converted model written to disk, whole or not at all
structure.py      a module without its weights as a file that loads by the allow-list (`structure.pt`)
"""
