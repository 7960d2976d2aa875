keep = 3
