"""`python -m spectrum_cli` is `spectrum`."""

from spectrum_cli.main import main

main()
