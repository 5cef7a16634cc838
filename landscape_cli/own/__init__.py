"""A network and data of one's own: named by dotted paths, built, checked and digested without touching this package."""
