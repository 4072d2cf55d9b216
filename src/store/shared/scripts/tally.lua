-- Adds up touches of a session by rule, for whoever asks why it ended.
-- KEYS: meta, tallies. ARGV: 1 milliseconds to keep it; then for each: rule, how many, the first and the last time.
-- Reply: `ok` head.
for i = 2, #ARGV, 4 do
    local known = redis.call('HGET', KEYS[2], ARGV[i])
    local count, first, last = tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
    if known then
        local c, f, l = string.match(known, '^(%d+) (%d+) (%d+)$')
        count, first, last = count + tonumber(c), math.min(first, tonumber(f)), math.max(last, tonumber(l))
    end
    if known or redis.call('HLEN', KEYS[2]) < 128 then
        redis.call('HSET', KEYS[2], ARGV[i], int(count) .. ' ' .. int(first) .. ' ' .. int(last))
    end
end
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return head('ok')
