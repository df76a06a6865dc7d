"""OpenVINO's files of a packed model.

check.py   an OpenVINO model against the packed model, part by part
child.py   OpenVINO in a process of its own, which may crash
graph.py   a program of torch.export -> an OpenVINO model
layers.py  one call of `binarize::conv` in OpenVINO's operators
limits.py  where OpenVINO's CPU plugin computes a BinaryConvolution right
plugin.py  OpenVINO's CPU plugin on a file
write.py   OpenVINO's own form of a network: NAME.xml, and NAME.bin with one bit a binary weight
"""
