"""What a workflow is: nodes, their links and settings, read from a file and checked before anything runs."""
