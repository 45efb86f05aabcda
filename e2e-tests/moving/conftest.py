"""Makes this folder's modules importable, and those of chaos: its load, its witnesses, its checker."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "chaos")]
