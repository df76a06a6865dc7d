"""Freezing: a network becomes binary a share at a time, entry by entry, layer by layer, or all at once at the end.

masks.py   masks over weights and channels of inputs, which grow at the beginnings of epochs
shares.py  how a stage freezes, as data
"""
