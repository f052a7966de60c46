"""Finds and runs a real tritonserver, the same way for the demo, the tests and the benchmarks."""

from server.launcher import Server, ServerError, launch

__all__ = ["Server", "ServerError", "launch"]
