"""Benchmarks: one command a table, results kept in ``results/`` as JSON and Markdown."""
