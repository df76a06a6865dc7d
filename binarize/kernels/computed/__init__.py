"""What the operators compute.

elsewhere.py  on other devices, and without the extension: the reference, with the same bits
on_cpu.py     on a CPU, by the native kernels
shapes.py     the shapes of the results alone; sizes may be symbols
"""
