"""``python -m analogtl``."""

from analogtl.cli import main

main()
