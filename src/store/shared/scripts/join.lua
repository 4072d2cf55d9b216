-- Comes into a namespace, which the first one makes.
-- KEYS: namespace. ARGV: 1 number of buckets; 2 fingerprint of the key; 3 format.
-- Reply: what the namespace has: buckets, fingerprint, format.
redis.call('HSETNX', KEYS[1], 'p', ARGV[1])
redis.call('HSETNX', KEYS[1], 'key', ARGV[2])
redis.call('HSETNX', KEYS[1], 'format', ARGV[3])
return redis.call('HMGET', KEYS[1], 'p', 'key', 'format')
