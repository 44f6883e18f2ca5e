//! Which life of Redis' data this is: a token that whoever misses it writes, with the server that it was written on.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use redis::{RedisError, Script, aio::ConnectionManager};
use uuid::Uuid;

/// KEYS: the token's. ARGV: the server's run id, a fresh id -> the id, and how many milliseconds ago it was written.
const LOOK: &str = "
local clock = redis.call('time')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local found = redis.call('get', KEYS[1])
if found then
  local id, server, at = found:match('^(%S+) (%S+) (%d+)$')
  if server == ARGV[1] then return { id, math.max(now - tonumber(at), 0) } end
end
redis.call('set', KEYS[1], string.format('%s %s %.0f', ARGV[2], ARGV[1], now))
return { ARGV[2], 0 }
";

#[derive(Clone, Debug)]
pub struct Generation {
    pub token: Arc<str>,
    /// From when on the ledger may be asked what was spent: everybody who has something running has said so.
    pub settled: Instant,
}

pub struct Generations {
    key: String,
    settling: Duration,
    look: Script,
    known: Mutex<Option<Generation>>,
}

impl Generations {
    pub fn new(prefix: &str, settling: Duration) -> Self {
        Self { key: format!("{prefix}:generation"), settling, look: Script::new(LOOK), known: Mutex::default() }
    }

    /// As it was last seen.
    pub fn known(&self) -> Option<Generation> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nothing is known of it any more.
    pub fn forget(&self) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// As it is. On another server than before it is another one.
    pub async fn look(&self, connection: &mut ConnectionManager) -> Result<Generation, RedisError> {
        let info: String = redis::cmd("INFO").arg("server").query_async(connection).await?;
        let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or("unknown").trim();
        let mut call = self.look.key(&self.key);
        let call = call.arg(run_id).arg(Uuid::now_v7().simple().to_string());
        let asked = Instant::now();
        let (token, age_ms): (String, u64) = call.invoke_async(connection).await?;
        let settled = asked + self.settling.saturating_sub(Duration::from_millis(age_ms));
        let generation = Generation { token: token.into(), settled };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(generation.clone());
        Ok(generation)
    }
}
