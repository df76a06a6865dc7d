"""A method as data: its parts, its scheme and its recipe.

card.py     what each part says of itself, and what it does to single numbers
part.py     parts: a class and its arguments as data, built when a layer needs it
recipe.py   the recipe of a training as data
scheme.py   the parts of one binarization method and its recipe: what `use: NAME` in a rule file means
shipped.py  the parts that this package has, read from its source files
"""
