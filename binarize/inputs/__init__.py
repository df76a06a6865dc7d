"""What a model takes: arguments, shapes, batches.

arguments.py    the arguments of one forward call: what is known of them, and made-up ones of that kind
batches.py      data in every form that a loader has, as arguments of forward calls
huggingface.py  what a model of the transformers library takes, by its configuration
noise.py        whether images were drawn by a random generator
seen.py         what a converted model has seen
shapes.py       a model's input when nobody gave it
"""
