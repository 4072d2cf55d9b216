-- What time it is in a bucket, how far its events are, and how many live sessions it has. Changes nothing.
-- KEYS: meta, due index. Reply: head, live sessions, remembered ends.
local reply = head('ok')
reply[8] = redis.call('ZCARD', KEYS[2])
reply[9] = redis.call('ZCARD', KEYS[3])
return reply
