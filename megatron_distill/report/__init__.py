"""What runs left behind, as tables, plots and a page. Reads files only; no torch."""
