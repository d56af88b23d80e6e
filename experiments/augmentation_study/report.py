def write(*a): return "TODO"
