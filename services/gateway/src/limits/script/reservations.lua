-- What is remembered of a running request:
-- "<scopes>|<slot>:<input>|<slot>:<output>,<slot>:<output>…|<budgets>:<day>:<month>:<cost>|<generation>|<requests>:<seats>",
-- scopes being 1 (tenant) or 2 (tenant and key), budgets the scopes that money was charged to, as in money.lua, and the last
-- two 1 unless it is a slice.

local function drop_expired_leases()
  for _, scope in ipairs(scopes) do
    for _, expired in ipairs(redis.call('zrangebyscore', scope.leases, '-inf', now)) do
      redis.call('zrem', scope.leases, expired)
      -- Without the number of a slice's seat.
      redis.call('hdel', reservations, expired:match('^[^:]+'))
    end
  end
end

local function check_leases(refusals, scope, key, most)
  if most == NO_LIMIT then return end
  local over = redis.call('zcard', key) + 1 - most
  if over <= 0 then return end
  local first = redis.call('zrange', key, 0, 0, 'withscores')[2]
  local retry_ms = first and math.min(CONCURRENCY_RETRY_MS, tonumber(first) - now) or CONCURRENCY_RETRY_MS
  refuse(refusals, scope, CONCURRENT, over, retry_ms)
end

local function lease(count, lease_ms)
  for n = 1, count do
    redis.call('zadd', scopes[n].leases, now + lease_ms, id)
    keep_for(scopes[n].leases, lease_ms + 1000)
  end
  keep_for(reservations, lease_ms + 1000)
end

-- How many scopes are charged, the input's slot and amount, the output's slots and amounts and their sum, and the money.
local function parse_held(text)
  local count, slot, input, rest, mask, day, month, cost, of, requests, seats =
    text:match('^(%d)|(%d+):(%d+)|(.*)|(%d):(%d+):(%d+):(%d+)|(.*)|(%d+):(%d+)$')
  local grants, granted = {}, 0
  for at, amount in rest:gmatch('(%d+):(%d+)') do
    grants[#grants + 1] = { slot = tonumber(at), amount = tonumber(amount) }
    granted = granted + tonumber(amount)
  end
  return { count = tonumber(count), slot = tonumber(slot), input = tonumber(input), grants = grants, granted = granted,
           mask = tonumber(mask), period = { day = tonumber(day), month = tonumber(month) }, cost = tonumber(cost),
           generation = of, requests = tonumber(requests), seats = tonumber(seats) }
end

-- Of this request; nil if unknown.
local function read_held()
  local text = redis.call('hget', reservations, id)
  return text and parse_held(text) or nil
end

local function write_held(held)
  local grants = {}
  for _, grant in ipairs(held.grants) do
    grants[#grants + 1] = string.format('%.0f:%.0f', grant.slot, grant.amount)
  end
  redis.call('hset', reservations, id, string.format('%d|%.0f:%.0f|%s|%d:%.0f:%.0f:%.0f|%s|%.0f:%.0f',
    held.count, held.slot, held.input, table.concat(grants, ','), held.mask, held.period.day, held.period.month,
    held.cost, held.generation, held.requests or 1, held.seats or 1))
end
