-- Amounts per minute, in slots of a second.

-- The live slots, oldest first, and their sum. Passed ones are deleted.
local function read_window(key)
  local slots, sum = {}, 0
  local fields = redis.call('hgetall', key)
  for i = 1, #fields, 2 do
    local slot, amount = tonumber(fields[i]), tonumber(fields[i + 1])
    if slot + WINDOW_SLOTS <= slot_now then
      redis.call('hdel', key, fields[i])
    else
      slots[#slots + 1] = { slot = slot, amount = amount }
      sum = sum + amount
    end
  end
  table.sort(slots, function(a, b) return a.slot < b.slot end)
  return slots, sum
end

-- Refuses what does not fit; returns the room that there is.
local function check_window(refusals, scope, limit, key, amount, most)
  if most == NO_LIMIT then return math.huge end
  local slots, sum = read_window(key)
  local over = sum + amount - most
  if over <= 0 then return most - sum end
  local freed, retry_ms = 0, NEVER
  for _, one in ipairs(amount > most and {} or slots) do
    freed = freed + one.amount
    if freed >= over then
      retry_ms = (one.slot + WINDOW_SLOTS) * SLOT_MS - now
      break
    end
  end
  refuse(refusals, scope, limit, over, retry_ms)
  return most - sum
end

local function charge(key, slot, amount)
  redis.call('hincrby', key, slot, amount)
  keep_for(key, (WINDOW_SLOTS + 1) * SLOT_MS)
end

-- Changes a charge, unless its slot has passed.
local function correct(key, slot, amount)
  if amount ~= 0 and slot + WINDOW_SLOTS > slot_now then charge(key, slot, amount) end
end
