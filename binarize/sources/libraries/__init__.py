"""Models that torchvision and timm build by name.

built.py               a module that a builder made: on the CPU, without data or with downloaded weights
known.py               what is known of the models before one is built: their names, and their usual input
on_disk.py             published weights that lie on this disk already
timm_models.py         models of timm
torchvision_models.py  models of torchvision
"""
