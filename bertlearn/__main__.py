"""`python -m bertlearn` is the command `bertlearn`."""

from bertlearn.cli import main

if __name__ == "__main__":
    main()
