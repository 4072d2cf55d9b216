-- Decides under which of its two names a session begins: the first one's wish holds for all who are about to begin it.
-- KEYS: claim. ARGV: 1 the name that is wanted; 2 for how many milliseconds from now on it holds.
-- Reply: the name.
redis.call('HSETNX', KEYS[1], 'n', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('HGET', KEYS[1], 'n')
