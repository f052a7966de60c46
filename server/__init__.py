"""Finds and runs a real tritonserver, the same way for the demo, the tests and the benchmarks."""
