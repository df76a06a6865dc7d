"""What a name of data may stand for.

folders.py       a folder of class folders
idx.py           IDX files (MNIST, Fashion-MNIST)
made_up.py       images that are made up: smooth patterns, one a class
through_timm.py  data sets of other packages, opened through timm
"""
