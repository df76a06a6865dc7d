"""A small trained network and the digits it was trained on, so that the demo needs neither network nor downloads."""
