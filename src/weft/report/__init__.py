"""Tables, plots, one-file HTML pages and Chrome traces. No torch; reads plans and records."""

from weft.report.bench import (
    BenchReport,
    Claim,
    at_least,
    at_most,
    environment,
    exactly,
    print_report,
    report_json,
    save_report,
)
from weft.report.demo_page import demo_page
from weft.report.machine_table import describe_machine, machine_tables
from weft.report.page import Page, Section, render, write_page
from weft.report.plan_page import plan_page
from weft.report.plan_summary import plan_plain, plan_sentence
from weft.report.table import Table, format_table
from weft.report.trace import trace_plain, write_trace

__all__ = [
    "BenchReport",
    "Claim",
    "Page",
    "Section",
    "Table",
    "at_least",
    "at_most",
    "demo_page",
    "describe_machine",
    "environment",
    "exactly",
    "format_table",
    "machine_tables",
    "plan_page",
    "plan_plain",
    "plan_sentence",
    "print_report",
    "render",
    "report_json",
    "save_report",
    "trace_plain",
    "write_page",
    "write_trace",
]
