-- Stands before each script that is told what touches of a session came to, for whoever asks why it ended.

-- Adds that up by rule. Among ARGV from a place on are: milliseconds to keep it; then for each rule: its name, how many, the first
-- and the last time. The record notes when the last touch came that did not count (their rules begin with `-`).
local function add_up(tallies, record, place)
    local ignored = 0
    for i = place + 1, #ARGV, 4 do
        local known = redis.call('HGET', tallies, ARGV[i])
        local count, first, last = tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
        if known then
            local c, f, l = string.match(known, '^(%d+) (%d+) (%d+)$')
            count, first, last = count + tonumber(c), math.min(first, tonumber(f)), math.max(last, tonumber(l))
        end
        if string.sub(ARGV[i], 1, 1) == '-' then
            ignored = math.max(ignored, last)
        end
        if known or redis.call('HLEN', tallies) < 128 then
            redis.call('HSET', tallies, ARGV[i], int(count) .. ' ' .. int(first) .. ' ' .. int(last))
        end
    end
    redis.call('PEXPIRE', tallies, ARGV[place])
    if ignored > 0 and redis.call('EXISTS', record) == 1 then
        redis.call('HSET', record, 'x', int(math.max(ignored, tonumber(redis.call('HGET', record, 'x')) or 0)))
    end
end

