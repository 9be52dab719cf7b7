"""The command `headstart`, which is `python -m headstart` too."""

from __future__ import annotations


def main() -> None:
    """Run the command line, whose own imports may be interrupted as well."""
    try:
        from headstart.cli import main as run

        run()
    except KeyboardInterrupt:
        from headstart.interruption import end_interrupted

        end_interrupted()


if __name__ == "__main__":
    main()
