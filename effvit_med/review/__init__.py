"""Looking at a result and correcting it: doubts, sessions and refinement, without a window."""
