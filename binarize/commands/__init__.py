"""The commands, one file a subject. Each parses, calls the library and prints; none of them decides anything.

command.py   what every command shares: its output options, its errors, its exit code
screen.py    where text, notes and JSON documents go
complete.py  shell completion, without importing torch
"""
