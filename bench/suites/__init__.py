"""What is measured: each module's tables(cell) yields Table objects, one after the other."""
