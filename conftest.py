"""Settings shared by all tests and by the notebooks that nbval executes.

Kernels start in the folder of their notebook: PYTHONPATH lets them import the package
of this checkout, installed or not. Two threads keep results and times comparable.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent

os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
os.environ.setdefault("OMP_NUM_THREADS", "2")

# Notebooks inside tests/ are material for tests (broken ones, too), never run by nbval.
collect_ignore_glob = ["tests/**/*.ipynb", "build/**", "my/**"]
