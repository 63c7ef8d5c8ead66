"""What the tasks that imitate an expert are made of."""
