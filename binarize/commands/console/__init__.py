"""What all commands share: options, output, exit codes.

bar.py           a progress bar that takes its line away before anything else is printed
choices.py       what the words of several commands stand for in the library
command.py       what every command shares
complete.py      shell completion of scheme and model names, fast enough for a key press
curve.py         a curve in characters
data_options.py  options that say which images to use and how to show them to the model
options.py       options that several commands take
screen.py        where a command's output goes
table.py         tables of commands that list things
"""
