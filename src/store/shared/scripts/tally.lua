-- Is told what touches of a session came to where no other call tells it.
-- KEYS: meta, tallies, record. ARGV: see `add_up`. Reply: `ok` head.
add_up(KEYS[2], KEYS[3], 1)
return head('ok')
