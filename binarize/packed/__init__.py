"""One bit a weight: packing, the reference arithmetic, the native kernels and the operators over them.

Import what is needed from the file that makes it: `packed.pack`, `packed.reference`, `packed.ops`.
"""
