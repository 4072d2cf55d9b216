-- The keys of a namespace become those of a sidecar that starts, if they are still the ones by which it was let in.
-- KEYS: namespace. ARGV: 1 fingerprint of the key, 2 of the other one, as they were; 3 and 4 as they are to be; '' for none.
-- Reply: 1, or 0 if somebody was faster.
local known = redis.call('HMGET', KEYS[1], 'key', 'other')
if known[1] ~= ARGV[1] or (known[2] or '') ~= ARGV[2] then
    return 0
end
redis.call('HSET', KEYS[1], 'key', ARGV[3], 'other', ARGV[4])
return 1
