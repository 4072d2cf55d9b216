-- Stands before each script of one bucket. KEYS[1] is its meta.
turn_to(KEYS[1])

