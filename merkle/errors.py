"""What a proof from somebody else can be: wrong."""


class InvalidProof(ValueError):
    """A proof does not show what it claims. The message says which step failed."""
