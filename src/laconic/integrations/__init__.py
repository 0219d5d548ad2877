"""laconic behind the interfaces of other packages; each module imports its package only when used."""
