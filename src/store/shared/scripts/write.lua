-- Stands before the scripts that write a record, `commit` and `restore`, after `time`. Their KEYS and ARGV are those of `commit`.

-- What fails must fail before the first write, for nothing is taken back: a key of another type, that somebody else wrote.
local function must_be_sound()
    redis.call('ZCARD', KEYS[3])
    redis.call('ZCARD', KEYS[7])
    redis.call('XRANGE', KEYS[4], '+', '-', 'COUNT', 1)
    redis.call('LRANGE', KEYS[6], 1, 0)
end

-- Writes the events, which begin at a place of ARGV with how many there are, then the places of the session in all indexes. So many
-- entries were in its timeline before.
local function write_around(at, told)
    local published = false
    for event = at + 1, at + 2 * tonumber(ARGV[at]), 2 do
        local where, body = tonumber(ARGV[event]), ARGV[event + 1]
        if where % 2 == 1 then
            number = number + 1
            local id = int(number) .. '-0'
            local added = redis.pcall('XADD', KEYS[4], 'MAXLEN', '~', ARGV[11], id, 'b', body)
            if added.err then
                -- Somebody else wrote there, with a higher number. Sessions go on; watchers find that their place is gone.
                redis.call('DEL', KEYS[4])
                redis.call('XADD', KEYS[4], id, 'b', body)
            end
            published = true
        end
        if where >= 2 then
            redis.call('RPUSH', KEYS[6], body)
            told = told + 1
        end
    end
    redis.call('HSET', KEYS[2], 'z', int(number), 'y', int(told))
    redis.call('PEXPIRE', KEYS[2], ARGV[9])
    if redis.call('EXISTS', KEYS[6]) == 1 then
        redis.call('LTRIM', KEYS[6], -64, -1)
        redis.call('PEXPIRE', KEYS[6], ARGV[9])
    end
    if ARGV[7] == '' then
        redis.call('ZREM', KEYS[3], ARGV[10])
    else
        redis.call('ZADD', KEYS[3], ARGV[7], ARGV[10])
    end
    if ARGV[8] ~= '' then
        redis.call('ZADD', KEYS[7], ARGV[8], ARGV[10])
        redis.call('HSET', KEYS[2], 'g', ARGV[8])
    end
    if published then
        redis.call('HSET', KEYS[1], 'n', int(number))
        redis.call('SPUBLISH', KEYS[5], int(number))
    end
end

