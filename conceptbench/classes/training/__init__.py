"""The recipes' training, as ``conceptbench train`` runs it."""
