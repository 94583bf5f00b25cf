"""The nouns every layer shares: pure data, imported by all, importing none of them."""
