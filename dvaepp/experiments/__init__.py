"""Experiments as data: the cells of Tables 1 and 2, and what runs them.

tables.py      a TOML file -> a table of cells, each with its configuration
plan.py        cells, seeds, scale -> runs, each with its folder; what became of a run, read from its folder
runner.py      runs -> outcomes, here or in several processes
cluster.py     the same on many machines, by Ray
selection.py   candidates of a cell -> the best on the validation images
summary.py     what is printed

The command is ``dvaepp.experiment``.
"""
