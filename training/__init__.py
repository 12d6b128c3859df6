"""Training of the networks that ship with the project, on motion that is rendered here."""
