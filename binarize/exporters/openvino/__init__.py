"""OpenVINO's files of a packed model.

check.py   an OpenVINO model against the packed model, part by part
graph.py   a program of torch.export -> an OpenVINO model
layers.py  one call of `binarize::conv` in OpenVINO's operators
limits.py  where OpenVINO's CPU plugin computes a BinaryConvolution right
write.py   OpenVINO's own form of a network: NAME.xml, and NAME.bin with one bit a binary weight
"""
