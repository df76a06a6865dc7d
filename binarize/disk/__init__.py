"""Files and folders that are written whole or not at all.

atomic.py        files and folders that appear under their final name whole or not at all
claim.py         a name that one command at a time writes to
exchange.py      two names of one disk exchanged in one step, so that each is there at every moment
file_name.py     what lies under a name that a file or a user gave, whatever the name
leftovers.py     the hidden names beside a file or folder that is written
owner.py         which process a file belongs to that is being written, and whether that process still lives
replacement.py   a new folder in the place of an old one
seal.py          a file of torch.save that carries the sha256 of its bytes
special_file.py  pipes, devices and sockets, which are no files: reading one may wait for ever, or never end
tensor_file.py   tensors as a safetensors file whose bytes depend on nothing but the tensors and the texts
"""
