"""A small trained network and the digits it was trained on: the demo needs neither network nor downloads."""
