"""What needs no training: the competitors that every table of quality should have beside it."""
