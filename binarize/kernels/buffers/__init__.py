"""What is checked of tensors before native code reads their memory.

arguments.py  what an operator may be given: each tensor against the geometry, told in words
digest.py     one number for what tensors hold
memory.py     where tensors lie in memory, as the kernels are told it
origin.py     whether what was made of tensors still holds
"""
