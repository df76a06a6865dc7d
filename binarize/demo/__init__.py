"""A small trained network and the digits it was trained on: the demo needs neither network nor downloads.

digits.py  the 8 x 8 digits, split once and for all, and the small VGG trained on them
train.py   the demonstration: train a converted network on the bundled digits with a plain PyTorch loop
"""
