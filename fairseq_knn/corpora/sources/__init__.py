"""One module per package that text is taken from: ``read(wheel)`` yields its raw pairs or documents.

Each also mends or leaves out what is wrong with that package alone. The order of the pairs is fixed.
"""
