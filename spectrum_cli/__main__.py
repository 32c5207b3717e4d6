"""The `spectrum` command, also as `python -m spectrum_cli`; heeds signals before all that takes
time to import."""

from __future__ import annotations

import sys

from spectrum_cli import signals


def main() -> None:
    signals.install()
    try:
        from spectrum_cli.main import main as command

        code = command()
    except KeyboardInterrupt:
        code = signals.taken() or 130
    sys.exit(code)


if __name__ == "__main__":
    main()
