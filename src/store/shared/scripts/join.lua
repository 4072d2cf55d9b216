-- Comes into a namespace, which the first one makes.
-- KEYS: namespace. ARGV: 1 number of buckets; 2 fingerprint of the key; 3 format; 4 fingerprint of the other key, or ''.
-- Reply: what the namespace has: buckets, fingerprint, format, fingerprint of the other key.
redis.call('HSETNX', KEYS[1], 'p', ARGV[1])
redis.call('HSETNX', KEYS[1], 'format', ARGV[3])
if redis.call('HSETNX', KEYS[1], 'key', ARGV[2]) == 1 then
    redis.call('HSET', KEYS[1], 'other', ARGV[4])
end
return redis.call('HMGET', KEYS[1], 'p', 'key', 'format', 'other')
