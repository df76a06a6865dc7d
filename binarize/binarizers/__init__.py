"""Binarizers: one file a paper. Each is an `nn.Module` that gives two values and brings its own gradient.

estimator        x -> sign(x), exactly -1 or +1, with a surrogate derivative in the backward pass
weight binarizer w -> Wb, or `split(w)` -> (two-valued tensor, scale applied after the convolution)
input binarizer  x -> two values; estimators are input binarizers
nonlinearity     y -> y, real-valued, with parameters per channel
output scale     y -> y * s, one learned number per channel

Shared: `sign.py` (the exact sign and the base of estimators) and `statistics.py` (numbers per filter).
"""
