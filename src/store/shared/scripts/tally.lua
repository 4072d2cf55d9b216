-- Adds up touches of a session by rule, for whoever asks why it ended.
-- KEYS: meta, tallies, record: it notes when the last touch came that did not count (their rules begin with `-`).
-- ARGV: 1 milliseconds to keep it; then for each: rule, how many, the first and the last time.
-- Reply: `ok` head.
local ignored = 0
for i = 2, #ARGV, 4 do
    local known = redis.call('HGET', KEYS[2], ARGV[i])
    local count, first, last = tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
    if known then
        local c, f, l = string.match(known, '^(%d+) (%d+) (%d+)$')
        count, first, last = count + tonumber(c), math.min(first, tonumber(f)), math.max(last, tonumber(l))
    end
    if string.sub(ARGV[i], 1, 1) == '-' then
        ignored = math.max(ignored, last)
    end
    if known or redis.call('HLEN', KEYS[2]) < 128 then
        redis.call('HSET', KEYS[2], ARGV[i], int(count) .. ' ' .. int(first) .. ' ' .. int(last))
    end
end
redis.call('PEXPIRE', KEYS[2], ARGV[1])
if ignored > 0 and redis.call('EXISTS', KEYS[3]) == 1 then
    redis.call('HSET', KEYS[3], 'x', int(math.max(ignored, tonumber(redis.call('HGET', KEYS[3], 'x')) or 0)))
end
return head('ok')
