"""Binarizers: one file a paper. Each is an `nn.Module` that gives two values and brings its own gradient.

estimator        x -> sign(x), exactly -1 or +1, with a surrogate derivative in the backward pass
weight binarizer w -> Wb, or `split(w)` -> (two-valued tensor, scale applied after the convolution)
input binarizer  x -> two values
nonlinearity     y -> y, real-valued, with parameters per channel
output scale     y -> y * s, one learned number per channel

An estimator is an input binarizer and, without a scale, a weight binarizer. Methods that only some have:
`calibrate(x)` sets thresholds and levels from a batch of real-valued inputs, `start_from_weight(w, axis)`
sets an output scale from the layer's weight, `scale_map(x, layer)` gives a factor per output position.

Shared: `sign.py` (the exact sign and the base of estimators), `statistics.py` (numbers per filter and per
channel).
"""
