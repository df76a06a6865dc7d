"""Where images come from, and how they reach a training: named data, preprocessing, loaders that can go on anywhere.

preprocessing.py   image sizes and normalization, from the model's own configuration
augment.py         what is done to training images, written as a word: "shift+flip"
tensors.py         images that lie in memory
samples.py         images that are read one by one, and what becomes of those that cannot be
idx.py             IDX files (MNIST, Fashion-MNIST)
folders.py         a folder of class folders
classes.py         which output of a model a class folder belongs to
named.py           `open_data("digits")`, "idx:PATH", "torch/cifar10", a folder, a Dataset
loaders.py         batches whose order and random numbers depend on the seed, the epoch and the image alone
"""

from __future__ import annotations

from binarize.inputs.seen import Preprocessing
from binarize.training.data.augment import Augment
from binarize.training.data.loaders import evaluation_loader, training_loader
from binarize.training.data.named import ImageData, open_data
from binarize.training.data.preprocessing import preprocessing_of
from binarize.training.data.samples import Batch

__all__ = [
    "Augment",
    "Batch",
    "ImageData",
    "Preprocessing",
    "evaluation_loader",
    "open_data",
    "preprocessing_of",
    "training_loader",
]
