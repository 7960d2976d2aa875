accept = [80, 443]
