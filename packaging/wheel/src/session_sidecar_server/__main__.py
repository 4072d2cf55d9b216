"""`python -m session_sidecar_server serve` is `session-sidecar serve`."""

import os
import sys

from . import program

os.execv(program(), ["session-sidecar", *sys.argv[1:]])
