"""The exact planner: flow programmes solved by HiGHS."""
