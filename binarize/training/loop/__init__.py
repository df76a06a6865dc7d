"""Pieces that are usable in any training loop.

binary_optimizers.py  Bop and BayesBiNN, and several optimizers as one
ending.py        with which weights a training ends
flips.py         how many binary weights change from one look to the next
nonfinite.py     where numbers first became infinite or NaN: the layer's name is what one needs to mend it
objective.py     the loss of one step
optimizers.py    optimizers of binary models
regularizers.py  terms of the loss that push latent weights towards two values
schedules.py     schedules of binarizers
stages.py        stages: training with only a part of the model binary, more of it in each
task.py          the LightningModule: one stage of a training, from recipe, objective, schedules and flips
freezing/        a network becomes binary a share at a time
"""
