"""What a training leaves on disk.

folder.py         the folder of a training
metrics.py        metrics.csv: one row an epoch, appended when the epoch is over, readable by everything
run.py            all that a training needs, as data
stored_schema.py  what finetune.json, and the checkpoint of a training, may say of it
"""
