"""One bit a weight: frozen and packed layers, the file that holds them, and the fast form of a model.

agreement.py   whether two models answer alike, bit for bit
buffers.py     whether the buffers of a frozen, packed or fused layer are tensors that it can compute with
drift.py       how far a frozen model is from the trained one
fold.py        a trained binary layer -> its frozen form
freeze.py      a trained model -> its inference form, on a copy
fused_conv.py  a packed layer and what follows it as one call of a kernel
layers.py      packed layers
levels.py      what a trained layer's binarizers do, found out by asking them
packing.py     a saved model packed to one bit a weight, and read back
window.py      the shape of a frozen layer
file/          the file packed.safetensors
frozen/        a binary layer as the numbers that inference needs
fused/         the fast form of a packed model
graph/         a packed model's graph as data: operators and modules of closed lists, made into a model without its class
"""

import binarize.kernels.operators  # noqa: F401  registers the operators of packed layers
