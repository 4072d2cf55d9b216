-- From now on records of a newer format may be in a namespace: who reads only older ones comes in no more.
-- KEYS: namespace. ARGV: 1 the format. Reply: 1, or 0 if that was so before.
if (tonumber(redis.call('HGET', KEYS[1], 'format')) or 0) >= tonumber(ARGV[1]) then
    return 0
end
redis.call('HSET', KEYS[1], 'format', ARGV[1])
return 1
