"""Plan, store, executor and run: the way of the data from a suite to a report."""
