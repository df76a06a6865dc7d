"""YAML text as plain data that remembers its places.

document.py  data that remembers where in a text each value stood, and messages that point there
parser.py    the data of one document, built from the events of the YAML parser
"""
