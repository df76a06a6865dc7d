"""What was done to every layer and why: as data, as JSON, and as text for terminals and browsers.

data.py        the report as data
difference.py  what two reports say differently: `binarize report A B`
hints.py       what one might want to try, and what is wrong with the inputs of layers
live.py        what binary layers read of the example images, and when that is too little to learn from
names.py       names of repeated blocks written as one
report.py      a conversion's report: made of its plan, and drawn in every form
schema.py      the JSON schema of a report
training.py    what became of a converted model in training, as data of its report
units.py       how the report writes numbers: the same in the terminal, in Markdown and in HTML
words.py       the sentences of a report: what terminal, Markdown and HTML say around the table
drawing/       a report drawn as text, Markdown, HTML and tables
"""
