-- Writes down what digests of limits stand for, also when the store is full: records cannot be read without.
-- KEYS: limits. ARGV: digest and limits of each. Reply: 1.
redis.call('HSET', KEYS[1], unpack(ARGV))
return 1
