"""Binarizers: one file a paper. Each is an `nn.Module` that gives two values and brings its own gradient.

estimator        x -> sign(x), exactly -1 or +1, with a surrogate derivative in the backward pass
weight binarizer w -> Wb, or `split(w)` -> (two-valued tensor, scale applied after the convolution)
input binarizer  x -> two values
nonlinearity     y -> y, real-valued, with parameters per channel (`Nonlinearity`)
output scale     y -> y * s, one learned number per channel

An estimator is an input binarizer and, without a scale, a weight binarizer. Methods that only some have:
`calibrate(x)` sets thresholds and levels from a batch of real-valued inputs, `start_from_weight(w, axis)`
sets an output scale, the weight itself or what has its size from the layer's weight, `start(mean, deviation)`
sets thresholds from known moments of the input, `scale_map(x, layer)` gives a factor per output position,
`relaxed(x)` stands in for an input binarizer while a stage of training has float inputs, `before_step(w)` and
`before_epoch(w)` are called by the training.

Shared: `sign.py` (the exact sign and the base of estimators), `nonlinearity.py` (what a nonlinearity says of
itself), `statistics.py` (numbers per filter and per channel).

abbnn.py          A&B BNN: a shifted PReLU whose slopes are powers of two
adabin.py         AdaBin: two values per filter and two per layer of activations
adabin_autograd.py  how AdaBin's formulas are run: by a kernel, else block by block
adabin_formulas.py  AdaBin's formulas and their gradients in plain torch
adabin_seed002.py  AdaBin's sets with both numbers of a weight learned
bayesbinn.py      BayesBiNN: weights drawn from trained probabilities
bernoulli.py      naive Bernoulli networks: signs with probabilities
binaryconnect.py  BinaryConnect: binary weights and real-valued inputs
biper.py          BiPer: the sign of a sine of the weight
bireal.py         Bi-Real Net: a triangular estimator for inputs
bit.py            BiT: elastic inputs, whose values and threshold are learned
bitnet.py         BitNet: signs around the layer's mean, inputs of eight bits
bnn.py            BNN: signs with the straight-through estimator that stops outside the unit interval
bnnplus.py        BNN+: the derivative of a Swish-like curve in place of the derivative of sign
dorefa.py         DoReFa-Net with one bit: one weight scale per layer, inputs 0 or 1
fda.py            FDA-BNN: the derivative of a truncated Fourier series of the sign, and noise that adapts
ienet.py          IE-Net: several thresholds per input
insta.py          INSTA-BNN: a threshold that follows each instance's own distribution
irnet.py          IR-Net: weights balanced before the sign, and an estimator that sharpens during training
nonlinearity.py   what a nonlinearity says of itself: its straight lines, how it starts as ReLU
pokebnn.py        PokeBNN: a nonlinearity of two learned slopes
proxybnn.py       ProxyBNN: a product of coefficients and a trained basis before the sign
rbnn.py           RBNN: weights rotated towards their signs, triangular estimators that grow steeper
reactnet.py       ReActNet: a learned threshold per channel before the sign, a shifted PReLU after the add
realtobinary.py   Real-to-Binary: outputs times a gate of the real-valued input
rebnn.py          ReBNN: latent weights held near their binary values
recu.py           ReCU: standardized weights whose tails are drawn in
reste.py          ReSTE: the derivative of a root in place of that of the sign
sibnn.py          SI-BNN: inputs of 0 and 1 with a trained window of the gradient
sign.py           the exact sign, and the base classes of estimators and weight binarizers
statistics.py     numbers per filter of a weight and per channel of an input
tang.py           Tang, Hua, Wang: inputs as a sum of binary terms
xnor.py           XNOR-Net: signs scaled by the mean magnitude of a filter
xnorpp.py         XNOR-Net++: learned factors per output channel or position in place of the computed scales
"""
