-- The server's clock was set, or another host took over: the bucket's time goes on from what the caller knows. Whoever comes
-- first corrects it.
-- KEYS: meta. ARGV: 1 the time that it is; 2 how often the clock was corrected when the caller noticed.
-- Reply: `ok` or `lost`, head.
if (META[5] or '0') ~= ARGV[2] then
    return head('lost')
end
local raw = CLOCK[1] * 1000000 + CLOCK[2]
local at = tonumber(ARGV[1])
redis.call('HSET', KEYS[1], 'c', int(at - raw), 'h', int(at), 'hold', int(at + 5000000), 'k', int(tonumber(ARGV[2]) + 1))
now, ahead, hold, META[5] = at, 0, at + 5000000, int(tonumber(ARGV[2]) + 1)
return head('ok')
