"""Finds and runs a real tritonserver, the same way for the demo, the tests and the benchmarks."""

from server.launcher import LaunchError, Server, launch

__all__ = ["LaunchError", "Server", "launch"]
