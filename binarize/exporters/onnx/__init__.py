"""ONNX and QONNX of a packed model.

check.py   an ONNX file against the packed model it was made from, by ONNX Runtime
graph.py   a packed model as an ONNX graph in which each product of a packed layer is one node
layers.py  products of packed layers in ONNX operators
nodes.py   new nodes of a graph, and constants by their names
qonnx.py   a QONNX file, for FINN and other compilers of dataflow: float operators around BipolarQuant
write.py   an ONNX file of standard operators
"""
