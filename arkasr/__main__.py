"""The command `arkasr` as `python -m arkasr`. torchrun starts it in this way."""

from arkasr.cli import main

if __name__ == "__main__":  # spawned worker processes import this module again
    raise SystemExit(main())
