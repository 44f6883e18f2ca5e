-- What is remembered of a running request:
-- "<scopes>|<slot>:<input>|<slot>:<output>,<slot>:<output>…|<budgets>:<day>:<month>:<cost>|<generation>|<requests>:<seats>",
-- scopes being 1 (tenant) or 2 (tenant and key), budgets the scopes that money was charged to, as in money.lua, and the last
-- two 1 unless it is a slice.

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

-- Of a request whose lease has passed nothing is known but its money, which its gateway may still settle: in `owed`, as it
-- was remembered.
local function drop_expired_of(leases)
  for _, expired in ipairs(redis.call('zrangebyscore', leases, '-inf', now)) do
    redis.call('zrem', leases, expired)
    -- Without the number of a slice's seat.
    local of = expired:match('^[^:]+')
    local text = redis.call('hget', reservations, of)
    if text then
      redis.call('hdel', reservations, of)
      if parse_held(text).mask > 0 then
        redis.call('hset', owed, of, text)
        keep_for(owed, MONEY_MS)
      end
    end
  end
end

local function drop_expired_leases()
  for _, scope in ipairs(scopes) do drop_expired_of(scope.leases) end
  drop_expired_of(seatless)
end

-- Of this request; nil if unknown.
local function read_held()
  local text = redis.call('hget', reservations, id)
  return text and parse_held(text) or nil
end

local function write_held(held, into)
  local grants = {}
  for _, grant in ipairs(held.grants) do
    grants[#grants + 1] = string.format('%.0f:%.0f', grant.slot, grant.amount)
  end
  redis.call('hset', into or reservations, id, string.format('%d|%.0f:%.0f|%s|%d:%.0f:%.0f:%.0f|%s|%.0f:%.0f',
    held.count, held.slot, held.input, table.concat(grants, ','), held.mask, held.period.day, held.period.month,
    held.cost, held.generation, held.requests or 1, held.seats or 1))
  if held.mask > 0 then
    -- Until it is found to have passed, so that its money is.
    keep_for(reservations, MONEY_MS)
    for n = 1, held.count do keep_for(scopes[n].leases, MONEY_MS) end
  end
end

-- Of a request, or slice, whose lease has passed: what it costs from now on, and whether it may change again.
local function correct_owed(cost, goes_on)
  local text = redis.call('hget', owed, id)
  if not text then return end
  local held = parse_held(text)
  if held.generation == generation then charge_money(held.mask, held.period, cost - held.cost) end
  held.cost = cost
  if goes_on then write_held(held, owed) else redis.call('hdel', owed, id) end
end
