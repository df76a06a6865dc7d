"""Training of converted models: pieces that are each usable alone in any PyTorch loop, and one call of all of them.

calibrate.py  `binarize.calibrate`
callbacks.py  what goes on beside the training
evaluate.py   `binarize.evaluate`: accuracy of a model, with its float model beside it
finetune.py   `binarize.finetune`
fit.py        carry out a prepared training, stage after stage. Importing this imports pytorch-lightning
prepare.py    from what a user names to what a training needs
recipe.py     what a training is made of, as data
result.py     what a training came to, remembered in the report of its model
starts.py     latent weights as a recipe wants them, thresholds for a model that never saw an image
trainer.py    pytorch-lightning's Trainer as we use it
data/         where images come from, and how they reach a training
evaluation/   scores of a model and how alike two models are
loop/         pieces that are usable in any training loop
records/      what a training leaves on disk
teachers/     the float model beside the binary one
"""
