"""Files of weights and models, read without running code from them.

checksums.py    checksums of a file and of the records in it
kinds.py        what a file is, read from its bytes and never from its suffix
safe_pickle.py  reads `torch.save` files without running code from them
pickles/        pickles, read without doing anything that they say
"""
