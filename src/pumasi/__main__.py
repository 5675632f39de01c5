"""`python -m pumasi` is the command `pumasi`."""

from pumasi.cli.main import main

if __name__ == "__main__":
    main()
