"""A packed model as a file for another runtime.

end_to_end.py   how a whole exported file answers beside the packed model, each on its own
export.py       a converted model -> a file that something else than Python runs
foreign.py      what other people's libraries raise, in words
foresee.py      what an export would refuse, before anything is trained
origin.py       what an exported file says of where it comes from
plain_names.py  the names of a recorded program's tensors as plain words
prepare.py      what every exporter starts from
program.py      a packed model as a program of torch.export
pt2.py          a program of torch.export
theory.py       what a packed model's numbers take at least
c/              Plain C99 of a packed model
onnx/           ONNX and QONNX of a packed model
openvino/       OpenVINO's files of a packed model
"""
