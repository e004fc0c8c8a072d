"""The command `bench` of this checkout, as a module: `python -m benchmarks.command --help`."""

from bench.cli.main import main

if __name__ == "__main__":
    main()
