"""Naive Bernoulli networks: weights and activations are ±1 with probabilities, trained smoothly, then hardened.

classes.py      which class takes a layer's place, and which layers are still random
comparison.py   a network of random signs beside the binary ones that it stands for
hardening.py    a network of random signs becomes a binary one for good
lattice.py      probabilities of sums, exactly, by the characteristic function
layers.py       layers of random signs, and the binary layers that they harden to
masses.py       whole mass functions of sums, and the leave-one-out masses that gradients are made of
moments.py      the central limit and the next terms
probability.py  the ways to compute a probability and its gradient, as one function
relatives.py    formulas of methods that are near
"""
