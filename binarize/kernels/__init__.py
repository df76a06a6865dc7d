"""Operators on bits, and the native code below them.

bits.py         Bits in memory: the canonical stream of a weight and the words of an activation
elementwise.py  elementwise work of training in one pass over memory
geometry.py     the shape of a binary convolution, checked once and then passed around
native.py       calls of the native kernels: checked tensors in, addresses and sizes to C
operators.py    Torch operators over the kernels: visible to torch.export and torch.compile
reference.py    the arithmetic of a packed layer in plain torch
row_calls.py    one call of the kernels that take a tensor as rows
tiles.py        elementwise work a block at a time
tracing.py      whether somebody looks at the operations that run
variants.py     finds the native kernels and says which variant of them runs
buffers/        what is checked and kept of tensors whose memory native code reads
computed/       what the operators compute
"""
