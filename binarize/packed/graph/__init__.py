"""A packed model's graph as data: operators and modules of closed lists, made into a model without its class.

names     the operators that a graph may name
modules   the module types that it may name, and the arguments they are made with
values    arguments of operators as JSON values
trace     packed model -> graph
build     graph + numbers -> model
"""
