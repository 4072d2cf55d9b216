-- What time it is in each of some buckets, how far its events are, and how many live sessions it has. Changes nothing.
-- KEYS: for each bucket meta, due index, ended index.
-- Reply: for each bucket head, live sessions, remembered ends; or the error, if its keys are none of ours.
local function look(place)
    turn_to(KEYS[place])
    local reply = head('ok')
    reply[8] = redis.call('ZCARD', KEYS[place + 1])
    reply[9] = redis.call('ZCARD', KEYS[place + 2])
    return reply
end
local replies = {}
for place = 1, #KEYS, 3 do
    local _, reply = pcall(look, place)
    replies[#replies + 1] = reply
end
return replies
