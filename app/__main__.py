"""`python -m app`."""

from app.cli.commands import run

run()
