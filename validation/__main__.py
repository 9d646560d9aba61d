"""See ``validation.command``."""

import sys

from dvaepp.command import run
from validation.command import PROG, main

run(PROG, lambda: main(sys.argv[1:]))
