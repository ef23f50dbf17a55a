"""`python -m cluster` is the command `psephos`."""

import sys

from cluster.cli import main

sys.exit(main())
