"""``python -m locex.cli``: the command line where its script is not on the path."""

from locex.cli.shell import main

if __name__ == "__main__":
    main()
