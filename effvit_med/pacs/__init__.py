"""Archives: scans fetched from a PACS, results stored back, and a node that segments what arrives."""
