"""Packed models timed beside the best that float is given.

bench.py   how fast a converted model is
rivals.py  what a packed layer or model is measured against
timing.py  functions timed in turns, and the memory they take
"""
