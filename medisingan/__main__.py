"""The console command, also as `python -m medisingan COMMAND ...`."""

import sys

from launch.main import main

if __name__ == "__main__":
    sys.exit(main())
