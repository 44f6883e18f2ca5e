-- Slices: what a gateway borrows ahead for a tenant and key, to serve requests from without asking. A slice is remembered
-- like a request, with as many requests and seats (places at the same time) as it holds. It is charged to the second until
-- which it may be drawn from, so that nothing of it is forgotten before 60 seconds after its last use.

local SEATS, MONEY = 4, 5

local function seat(n)
  return id .. ':' .. string.format('%d', n)
end

local function set_seats(held, seats, lease_ms)
  for scope = 1, held.count do
    local key = scopes[scope].leases
    for n = seats + 1, held.seats do redis.call('zrem', key, seat(n)) end
    for n = 1, seats do redis.call('zadd', key, now + lease_ms, seat(n)) end
    keep_for(key, lease_ms + 1000)
  end
  keep_for(reservations, lease_ms + 1000)
  -- A lease all the same: one whose gateway has forgotten it must not stay.
  if seats == 0 then
    redis.call('zadd', seatless, now + lease_ms, id)
    keep_for(seatless, held.mask > 0 and MONEY_MS or lease_ms + 1000)
  else
    redis.call('zrem', seatless, id)
  end
  held.seats = seats
end

-- for how long it may be drawn from and its lease, in ms; into how many parts what is left is divided, of which it gets at
-- most one; what it should hold in all: requests, input, output, seats, money; the limits of the tenant and of the key
-- -> what it holds: requests, input, output, seats, money; slot of now, milliseconds to the end of the day, then scope and
-- limit of each that kept output or money from being more; or unknown money
local function borrow(n)
  local valid_ms, lease_ms, parts, wanted = n[1], n[2], n[3], part(n, 4, 8)
  local limits, count = { part(n, 9, 8 + LIMITS), part(n, 9 + LIMITS, 8 + 2 * LIMITS) }, 1
  for _, most in ipairs(limits[2]) do if most ~= NO_LIMIT then count = 2 end end
  local held = read_held()
  if not held then
    local mask = budgeted({ part(limits[1], BUDGET_DAY, BUDGET_MONTH), part(limits[2], BUDGET_DAY, BUDGET_MONTH) })
    held = { count = count, slot = math.floor((now + valid_ms) / SLOT_MS), input = 0, grants = {}, granted = 0,
             mask = mask, period = mask > 0 and period_now() or NOWHERE, cost = 0, generation = generation,
             requests = 0, seats = 0 }
  end
  local spent, unknown = read_money(held.mask, held.period)
  if unknown > 0 then return unknown_money(held.period, unknown) end
  local has_now, more, stopped = { held.requests, held.input, held.granted, held.seats, held.cost }, {}, {}
  for i, all in ipairs(wanted) do more[i] = math.max(all - has_now[i], 0) end
  local function bound(i, scope, limit, room)
    local lent = math.floor(math.max(room, 0) / parts)
    if lent >= more[i] then return end
    more[i] = lent
    if i == OUTPUT or i == MONEY then
      stopped[#stopped + 1] = scope
      stopped[#stopped + 1] = limit
    end
  end
  for scope = 1, held.count do
    local keys, most = scopes[scope], limits[scope]
    for i, key in ipairs({ keys.requests, keys.input, keys.output }) do
      if most[i] ~= NO_LIMIT and more[i] > 0 then
        local _, sum = read_window(key)
        bound(i, scope, i, most[i] - sum)
      end
    end
    if most[CONCURRENT] ~= NO_LIMIT and more[SEATS] > 0 then
      bound(SEATS, scope, CONCURRENT, most[CONCURRENT] - redis.call('zcard', keys.leases))
    end
    for i, limit in ipairs(spent[scope] and { BUDGET_DAY, BUDGET_MONTH } or {}) do
      if most[limit] ~= NO_LIMIT then bound(MONEY, scope, limit, most[limit] - spent[scope][i]) end
    end
  end
  if held.mask == 0 then more[MONEY] = 0 end
  local slot = math.max(held.slot, math.floor((now + valid_ms) / SLOT_MS))
  for scope = 1, held.count do
    for i, key in ipairs({ scopes[scope].requests, scopes[scope].input }) do
      if more[i] > 0 then charge(key, held.slot, more[i]) end
    end
    if more[OUTPUT] > 0 then charge(scopes[scope].output, slot, more[OUTPUT]) end
  end
  if more[OUTPUT] > 0 then held.grants[#held.grants + 1] = { slot = slot, amount = more[OUTPUT] } end
  charge_money(held.mask, held.period, more[MONEY])
  held.requests, held.input, held.cost = held.requests + more[1], held.input + more[2], held.cost + more[MONEY]
  set_seats(held, held.seats + more[SEATS], lease_ms)
  write_held(held)
  local answer = { held.requests, held.input, held.granted + more[OUTPUT], held.seats, held.cost, slot_now,
                   period_ends_in({ day = math.floor(now / DAY_MS) }, BUDGET_DAY) }
  for _, one in ipairs(stopped) do answer[#answer + 1] = one end
  return answer
end

-- what a slice shall hold from now on: requests, input, output, seats, money; its lease in ms, and whether it goes on
-- -> whether it was known
local function resize(n)
  local held = read_held()
  if not held then
    correct_owed(n[5], n[7] == 1)
    return { 0 }
  end
  local left = n[3]
  for scope = 1, held.count do
    correct(scopes[scope].requests, held.slot, n[1] - held.requests)
    correct(scopes[scope].input, held.slot, n[2] - held.input)
  end
  for _, grant in ipairs(held.grants) do
    local kept = math.min(left, grant.amount)
    for scope = 1, held.count do correct(scopes[scope].output, grant.slot, kept - grant.amount) end
    grant.amount, left = kept, left - kept
  end
  if left > 0 then
    for scope = 1, held.count do correct(scopes[scope].output, slot_now, left) end
    held.grants[#held.grants + 1] = { slot = slot_now, amount = left }
  end
  if held.generation == generation then charge_money(held.mask, held.period, n[5] - held.cost) end
  held.requests, held.input, held.cost = n[1], n[2], n[5]
  set_seats(held, n[4], n[6])
  if n[7] == 1 then
    write_held(held)
  else
    redis.call('hdel', reservations, id)
    redis.call('zrem', seatless, id)
  end
  return { 1 }
end
