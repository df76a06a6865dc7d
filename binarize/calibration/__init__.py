"""What a converted model learns from unlabelled images without any training: layer by layer, in execution order.

closed_form.py  scale and shift of a channel, and the classifier, by least squares
follow.py       the sites of a model, found while it runs
norms.py        running statistics of BatchNorm behind binary layers, anew from images
progress.py     what an interrupted calibration had worked out
result.py       what was done, as data and in words
settle.py       one pass that does all of this where each layer stands
signs.py        signs of a filter by coordinate descent on its Gram matrix
sites.py        which values of the float and the binary model are compared
steps.py        a few hundred steps of Adam, on one layer or on all parts together
thresholds.py   thresholds and levels of binary inputs
"""
