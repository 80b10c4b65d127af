"""Makes recipes importable by name, as `weft` does while it loads one."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "recipes"))
