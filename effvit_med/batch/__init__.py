"""Thousands of series in one run: a journal, a pipeline of processes, a manifest; restartable at any moment."""
