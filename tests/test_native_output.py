"""What C libraries print is hidden; what Python prints is not."""

import subprocess
import sys

from conftest import ROOT

SCRIPT = """
import os, sys
from meljax.util.native_output import hidden, keep_python_output

keep_python_output()
with hidden():
    with hidden():
        os.write(2, b"hidden ")
    os.write(2, b"hidden too ")
    print("printed", file=sys.stderr)
os.write(2, b"shown")
"""


def test_only_libraries_are_hidden():
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr == "printed\nshown"
