"""What is checked and kept of tensors whose memory native code reads.

arguments.py  what an operator may be given: each tensor against the geometry, told in words
digest.py     one number for what tensors hold
kept.py       what is made of a tensor, kept as long as the tensor lives unchanged
layout.py     weights as the kernels want them, made at load time from the canonical stream
memory.py     where tensors lie in memory, as the kernels are told it
origin.py     whether what was made of tensors still holds
readable.py   parameters and images as the kernels read them
"""
