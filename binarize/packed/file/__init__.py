"""The file packed.safetensors.

contents.py     a packed model as numbers to be written, and numbers put into a rebuilt one
format.py       packed.safetensors: a packed model's numbers, one bit a sign. Reading it runs nothing
packed_form.py  a trained model -> its packed form in a file
provenance.py   what a packed or exported model was made of
schema.py       what the index of a packed file may say of layers and tensors
tables.py       the tables of a packed file
unpacking.py    a packed file, alone or with its folder -> the packed model that it holds
"""
