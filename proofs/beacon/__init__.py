"""The beacon: a value a block (`chain`), and the seeds of past periods that follow from it (`seeds`)."""
