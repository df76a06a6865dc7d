"""The float model beside the binary one.

distances.py  losses that compare the binary model with a teacher: its output, or its features on the way
fitted.py     a binary model fitted to its float model on unlabelled images
find.py       who teaches: the float model that was converted, unless another is named, or none
teacher.py    the float model beside the binary one
"""
