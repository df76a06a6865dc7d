"""Where images come from, and how they reach a training: named data, preprocessing, loaders that can go on anywhere.

augment.py        what is done to training images, written as a word: "shift+flip"
image_data.py     one split of a data set, and parts of it
loaders.py        batches whose order and random numbers depend on the seed, the epoch and the image alone
named.py          `open_data("digits")`, "idx:PATH", "torch/cifar10", a folder, a Dataset
opened.py         images as a command opens them
order.py          the order of batches, and loaders that are replayed in it
preprocessing.py  image sizes and normalization, from the model's own configuration
samples.py        images that are read one by one, and what becomes of those that cannot be
seeds.py          random numbers that depend on what they are for, and not on what was drawn before
tensors.py        images that lie in memory
kinds/            what a name of data may stand for
"""

from __future__ import annotations

from binarize.inputs.seen import Preprocessing
from binarize.training.data.augment import Augment
from binarize.training.data.image_data import ImageData
from binarize.training.data.loaders import evaluation_loader, training_loader
from binarize.training.data.named import open_data
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
