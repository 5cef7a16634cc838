"""Style, curves and the writing of figures and tables. Called with finished frames; nothing is computed here."""
