"""DVAE++ (Vahdat et al. 2018, arXiv:1802.04920) in NumPy: every formula of the project is defined here, once.

Read README.md first; it gives the order of the files and the table of symbols. No formula draws random numbers: noise
is an argument, or is named by a seed and a counter (see ``philox``).
"""
