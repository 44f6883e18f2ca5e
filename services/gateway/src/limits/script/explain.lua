-- What `reserve` would say, and how every limit stands. Nothing is charged.

local NO_ROOM = -1

-- Whether what is remembered under this id, a request or a slice, is the scope's: the key's are among the tenant's.
local function is_of(scope, held, id)
  if held.count < scope then return false end
  local leases = scopes[scope].leases
  return scope == 1 or redis.call('zscore', leases, id) or redis.call('zscore', leases, id .. ':1')
end

-- What the running requests, and slices lent to gateways, hold of each limit of a scope.
local function held_by_running(scope, period)
  local sums = { 0, 0, 0, 0, 0, 0 }
  local function add(limit, amount) sums[limit] = sums[limit] + amount end
  local fields = redis.call('hgetall', reservations)
  for i = 1, #fields, 2 do
    local held = parse_held(fields[i + 1])
    if is_of(scope, held, fields[i]) then
      if held.slot + WINDOW_SLOTS > slot_now then
        add(REQUESTS, held.requests)
        add(INPUT, held.input)
      end
      for _, grant in ipairs(held.grants) do
        if grant.slot + WINDOW_SLOTS > slot_now then add(OUTPUT, grant.amount) end
      end
      add(CONCURRENT, held.seats)
      if has(held.mask, scope) and held.period.day == period.day then add(BUDGET_DAY, held.cost) end
      if has(held.mask, scope) and held.period.month == period.month then add(BUDGET_MONTH, held.cost) end
    end
  end
  return sums
end

-- scope -> of each of its counters of money: name, amount, and how much of that is held by running requests and slices
local function stands(n)
  local scope, answer, held_of = n[1], {}, {}
  local key = scopes[scope].money
  if redis.call('hget', key, 'g') ~= generation then return answer end
  local fields = redis.call('hgetall', reservations)
  for i = 1, #fields, 2 do
    local held = parse_held(fields[i + 1])
    if held.generation == generation and has(held.mask, scope) and is_of(scope, held, fields[i]) then
      for _, counter in ipairs({ 'd' .. held.period.day, 'm' .. held.period.month }) do
        held_of[counter] = (held_of[counter] or 0) + held.cost
      end
    end
  end
  local counters = redis.call('hgetall', key)
  for i = 1, #counters, 2 do
    if counters[i]:match('^[dm]%d+$') then
      answer[#answer + 1] = counters[i]
      answer[#answer + 1] = tonumber(counters[i + 1])
      answer[#answer + 1] = held_of[counters[i]] or 0
    end
  end
  return answer
end

-- What is charged, and when the oldest of it is free again.
local function window_stands(key)
  local slots, sum = read_window(key)
  for _, one in ipairs(slots) do
    if one.amount > 0 then return sum, (one.slot + WINDOW_SLOTS) * SLOT_MS - now end
  end
  return sum, NEVER
end

local function leases_stand(key)
  local first = redis.call('zrange', key, 0, 0, 'withscores')[2]
  return redis.call('zcard', key), first and math.min(CONCURRENCY_RETRY_MS, tonumber(first) - now) or NEVER
end

local function budget_stands(spent, period, limit)
  return spent, spent > 0 and period_ends_in(period, limit) or NEVER
end

-- as `reserve` -> for each limit that is set: scope, limit, used, held by running requests, needed, over (0: admitted),
-- free again in ms, output tokens that it has room for; or unknown money
local function explain(n)
  local ask, answer = read_ask(n), {}
  local spent, unknown = read_money(ask.mask, ask.period)
  if unknown > 0 then return unknown_money(ask.period, unknown) end
  local needed = { 1, ask.input, 1, 1, cost_of(ask.price, 1), cost_of(ask.price, 1) }
  for scope = 1, ask.count do
    local keys, held, refusals, refused = scopes[scope], held_by_running(scope, ask.period), {}, {}
    check_scope(refusals, scope, ask, spent)
    for i = 1, #refusals, 4 do refused[refusals[i + 1]] = { over = refusals[i + 2], retry_ms = refusals[i + 3] } end
    for limit, most in ipairs(ask.limits[scope]) do
      if most ~= NO_LIMIT then
        local used, free_ms, room = 0, NEVER, NO_ROOM
        if limit == CONCURRENT then
          used, free_ms = leases_stand(keys.leases)
        elseif limit == BUDGET_DAY or limit == BUDGET_MONTH then
          used, free_ms = budget_stands(spent[scope][limit - CONCURRENT], ask.period, limit)
          room = affordable(ask.price, 0, ask.wanted, math.max(most - used, 0))
        else
          used, free_ms = window_stands(({ keys.requests, keys.input, keys.output })[limit])
          if limit == OUTPUT then room = math.max(most - used, 0) end
        end
        local refusal = refused[limit]
        local over = refusal and refusal.over or 0
        if refusal then free_ms = refusal.retry_ms end
        for _, value in ipairs({ scope, limit, used, held[limit], needed[limit], over, free_ms, room }) do
          answer[#answer + 1] = value
        end
      end
    end
  end
  return answer
end
