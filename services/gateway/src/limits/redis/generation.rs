//! Which life of Redis' data this is: a token that whoever misses it writes, with the server that it was written on.
//!
//! A gateway that hears of a generation late may have let requests end meanwhile that others have not found in the ledger,
//! and so may one that counted requests in its own memory: then it begins another generation, so that the ledger is read
//! once more. As does whoever hears of that one late, but not again and again.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{RedisError, Script, aio::ConnectionManager};
use uuid::Uuid;

/// KEYS: the token's. ARGV: the server's run id, a fresh id, the id of a generation that is over, or nothing -> the id, and
/// how many milliseconds ago it was written.
const LOOK: &str = "
local clock = redis.call('time')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local found = redis.call('get', KEYS[1])
if found then
  local id, server, at = found:match('^(%S+) (%S+) (%d+)$')
  if server == ARGV[1] and id ~= ARGV[3] then return { id, math.max(now - tonumber(at), 0) } end
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
    seen: Mutex<Seen>,
    /// Requests may have ended here that nobody has counted in the generation that is known.
    uncounted: AtomicBool,
}

#[derive(Default)]
struct Seen {
    known: Option<Generation>,
    /// The last one that was known.
    last: Option<Arc<str>>,
    /// When this gateway last began one because of what was not counted.
    began: Option<Instant>,
}

/// Of the settling time: until a gateway begins a generation again.
const PAUSE: u32 = 8;

impl Generations {
    pub fn new(prefix: &str, settling: Duration) -> Self {
        let (key, look) = (format!("{prefix}:generation"), Script::new(LOOK));
        Self { key, settling, look, seen: Mutex::default(), uncounted: AtomicBool::new(false) }
    }

    /// As it was last seen.
    pub fn known(&self) -> Option<Generation> {
        self.on(|seen| seen.known.clone())
    }

    /// Nothing is known of it any more.
    pub fn forget(&self) {
        self.on(|seen| seen.known = None);
    }

    /// A request with a budget has ended that Redis was not told of.
    pub fn missed_one(&self) {
        self.uncounted.store(true, Ordering::SeqCst);
    }

    /// As it is. On another server than before it is another one.
    pub async fn look(&self, connection: &mut ConnectionManager) -> Result<Generation, RedisError> {
        self.read(connection, "").await
    }

    /// Begins another one than this if there is something that nobody has counted in it.
    pub async fn begin_where_uncounted(
        &self,
        generation: Generation,
        connection: &mut ConnectionManager,
    ) -> Result<Generation, RedisError> {
        let paused = self.on(|seen| seen.began.is_some_and(|began| began.elapsed() < PAUSE * self.settling));
        if paused || !self.uncounted.swap(false, Ordering::SeqCst) {
            return Ok(generation);
        }
        let begun = self.read(connection, &generation.token).await.inspect_err(|_| self.missed_one())?;
        tracing::warn!("requests ended here that Redis was not told of: what was spent is read from the ledger again");
        self.on(|seen| seen.began = Some(Instant::now()));
        Ok(begun)
    }

    async fn read(&self, connection: &mut ConnectionManager, over: &str) -> Result<Generation, RedisError> {
        let info: String = redis::cmd("INFO").arg("server").query_async(connection).await?;
        let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or("unknown").trim();
        let mut call = self.look.key(&self.key);
        let call = call.arg(run_id).arg(Uuid::now_v7().simple().to_string()).arg(over);
        let asked = Instant::now();
        let (token, age_ms): (String, u64) = call.invoke_async(connection).await?;
        let age = Duration::from_millis(age_ms);
        let generation = Generation { token: token.into(), settled: asked + self.settling.saturating_sub(age) };
        let last = self.on(|seen| {
            seen.known = Some(generation.clone());
            seen.last.replace(Arc::clone(&generation.token))
        });
        // What ends here from now on is in the ledger before anybody reads it, unless half of that time is over.
        if age > self.settling / 2 && last.is_some_and(|last| last != generation.token) {
            self.missed_one();
        }
        Ok(generation)
    }

    fn on<T>(&self, act: impl FnOnce(&mut Seen) -> T) -> T {
        act(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
