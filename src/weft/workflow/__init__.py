"""End-to-end compositions, one a file: the only place where strangers meet.

Importing a workflow loads no torch; calling one loads what it needs.
"""

from weft.workflow.capture_recipe import capture_recipe
from weft.workflow.demo import run_demo
from weft.workflow.measurements import read_measurements
from weft.workflow.plan_file import open_planned, save_planned
from weft.workflow.plan_model import plan_model
from weft.workflow.planned import Planned, explain_plan, timeline_of
from weft.workflow.probe_host import probe_host
from weft.workflow.recipe import load_workload
from weft.workflow.reference import run_reference
from weft.workflow.run_plan import RunSettings, run_recipe
from weft.workflow.score_plan import score, score_expert

__all__ = [
    "Planned",
    "RunSettings",
    "capture_recipe",
    "explain_plan",
    "load_workload",
    "open_planned",
    "plan_model",
    "probe_host",
    "read_measurements",
    "run_demo",
    "run_recipe",
    "run_reference",
    "save_planned",
    "score",
    "score_expert",
    "timeline_of",
]
