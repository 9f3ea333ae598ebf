import subprocess
import sys
from pathlib import Path


def test_the_list_of_faults_fits_the_code():
    command = [sys.executable, Path(__file__).with_name('faults.py'), '--list']
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
