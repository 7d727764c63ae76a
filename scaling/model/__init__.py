"""The transformer: M models of one shape as one program."""
