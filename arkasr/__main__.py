"""`python -m arkasr` is the `arkasr` command; torchrun launches it this way."""

from arkasr.cli import main

if __name__ == "__main__":  # worker processes that are spawned import this module again
    raise SystemExit(main())
