"""A packed model's graph as data: operators and modules of closed lists, made into a model without its class.

bounds.py    what a step of a graph may give beside tensors: numbers and short lists
build.py     graph + numbers -> model
lines.py     nonlinearities of the user's own as a module of the closed list
modules.py   the module types that it may name, and the arguments they are made with
names.py     the operators that a graph may name
rehearse.py  a graph from a file is run once on shapes alone, before it is run on numbers
trace.py     packed model -> graph
values.py    arguments of operators as JSON values
"""
