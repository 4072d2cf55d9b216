-- Stands before each script of a bucket. What it says is about the bucket that it has turned to. The meta of a bucket has: c
-- correction of the clock and h last heartbeat, in microseconds; hold: until when ends are held; n: number of the last event; k: how
-- often the clock was corrected; e: epoch.
--
-- The time of a bucket is the server's, corrected, and never behind a heartbeat. Every reply begins with a word, that time,
-- hold, n, k, e, and how far the corrected clock is ahead of the last heartbeat. A caller says what time it thinks it is, with a
-- minus if it has known that for a moment only; a script that changes something refuses with `clock` if that is more than a second
-- away, for then the server's clock was set, or the call was under way for long, or what it writes was reckoned otherwise.
local CLOCK = redis.call('TIME')
local META, now, ahead, hold, number
local FIELDS = {'v', 't', 'l', 'f', 'i', 'a', 'b', 'w', 'e', 'p', 'q', 'z', 'x', 'y'}

local function turn_to(meta)
    META = redis.call('HMGET', meta, 'c', 'h', 'hold', 'n', 'k', 'e')
    local raw = CLOCK[1] * 1000000 + CLOCK[2] + (tonumber(META[1]) or 0)
    now = math.max(raw, tonumber(META[2]) or 0)
    ahead = raw - (tonumber(META[2]) or raw)
    hold = tonumber(META[3]) or 0
    number = tonumber(META[4]) or 0
end

local function int(value)
    return string.format('%.0f', value)
end

local function head(word)
    return {word, now, hold, number, tonumber(META[5]) or 0, META[6] or '', ahead}
end

-- A caller that does not know the time yet says 0. Such a one, and one that has come only just now, cannot tell a clock that was
-- set from a heartbeat that nobody gave.
local function off(estimate)
    local at = tonumber(estimate)
    return at <= 0 and math.abs(ahead) > 1000000 or at ~= 0 and math.abs(now - math.abs(at)) > 1000000
end

-- The reply with a record behind it: the values of FIELDS, or nothing if there is no record.
local function with(word, record)
    local reply = head(word)
    local fields = redis.call('HMGET', record, unpack(FIELDS))
    if fields[1] then
        reply[8] = fields
    end
    return reply
end

