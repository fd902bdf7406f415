"""``python -m lifealign``: the command line."""

from lifealign.cli import main

if __name__ == "__main__":
    main()
