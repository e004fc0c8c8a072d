"""Places on the nodes of a Ray cluster: which nodes there are, an actor for each device, and the pool that gives them jobs."""
