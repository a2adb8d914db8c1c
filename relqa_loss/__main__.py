"""``python -m relqa_loss``: the ``relqa`` command, where its script is not on the path."""

import sys

from relqa_loss.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
