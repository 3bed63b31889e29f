"""``python -m dlpipe.cli``: the same as ``dlpipe``."""

from dlpipe.cli import main

main()
