-- The events of a bucket do not go on from where somebody has followed them: a new epoch says so to all. Whoever comes first
-- gives it.
-- KEYS: meta. ARGV: 1 the epoch that was; 2 the new one. Reply: `ok` head.
if (META[6] or '') == ARGV[1] then
    redis.call('HSET', KEYS[1], 'e', ARGV[2])
    META[6] = ARGV[2]
end
return head('ok')
