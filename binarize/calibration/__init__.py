"""What a converted model learns from unlabelled images without any training: layer by layer, in execution order.

batches.py      data in every form -> batches of arguments
thresholds.py   thresholds and levels of binary inputs
statistics.py   running statistics of BatchNorm
sites.py        which values of the float and the binary model are compared
closed_form.py  scale and shift of a channel, and the classifier, by least squares
signs.py        signs of a filter by coordinate descent on its Gram matrix
reconstruct.py  a few hundred steps of Adam on one layer
settle.py       one pass that does all of this where each layer stands
joint.py        steps of Adam on all layers together
starts.py       thresholds and statistics alone, without the float model
result.py       what was done, as data and in words
"""
