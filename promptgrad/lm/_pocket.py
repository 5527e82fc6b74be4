"""`pocket`: the language model that comes with promptgrad."""
