"""The commands, one file a subject. Each parses, calls the library and prints; none of them decides anything.

bench.py      `binarize bench`: how fast a converted model is, beside the best that float is given
calibrate.py  `binarize calibrate`: fit a converted model to its float model on unlabelled images
convert.py    `binarize convert` and `binarize plan`
demo.py       `binarize demo`: the whole way on embedded data, offline, with the numbers of this very run
doctor.py     `binarize doctor` and `binarize version`
evaluate.py   `binarize eval`: accuracy of a converted model, its float model beside it
export.py     `binarize export`: a converted model for another runtime
finetune.py   `binarize finetune`
pack.py       `binarize pack`: a converted model's weights at one bit each
report.py     `binarize report`: show a report again, in another format, or compare two
rules.py      `binarize rules ...`: look at rule sets, check them, begin one
schemes.py    `binarize schemes ...`: the shipped schemes, what one is made of, and what two have apart
study.py      `binarize study`: many trainings of one question, by Ray
console/      what all commands share: options, output, exit codes
"""
