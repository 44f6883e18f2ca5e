//! Which life of Redis' data this is: a token that whoever misses it writes, with the server that it was written on.
//!
//! A gateway that has not handed over in time what it has running, or has not told the ledger in time what it has let
//! through, may have been missed by whoever read the ledger, and so may one that counted requests in its own memory: it begins
//! another generation, so that the ledger is read once more. As does whoever is late then, but not again and again.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{RedisError, Script, aio::ConnectionManager};
use uuid::Uuid;

/// A token is `<number>-<id>`; of two, the later one has the larger number (`later` in money.lua). It is the server's time
/// in milliseconds, or one more than any that is known, should that be larger.
///
/// KEYS: the token's. ARGV: the server's run id, a fresh id, the token of a generation that is over, or nothing, the largest
/// number that is known -> the token, and how many milliseconds ago it was written.
const LOOK: &str = "
local clock = redis.call('time')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local token, server, since = (redis.call('get', KEYS[1]) or ''):match('^(%S+) (%S+) (%d+)$')
if token and server == ARGV[1] and token ~= ARGV[3] then return { token, math.max(now - tonumber(since), 0) } end
local before = token and tonumber(token:match('^(%d+)-')) or 0
local number = math.max(now, before + 1, tonumber(ARGV[4]) + 1)
token = string.format('%.0f-%s', number, ARGV[2])
redis.call('set', KEYS[1], string.format('%s %s %.0f', token, ARGV[1], now))
return { token, 0 }
";

#[derive(Clone, Debug)]
pub struct Generation {
    pub token: Arc<str>,
    /// From when on the ledger may be asked what was spent: everybody who has something running has said so.
    pub settled: Instant,
    /// Until when everybody must have said so: no other gateway asks sooner.
    pub due: Instant,
}

pub struct Generations {
    key: String,
    settling: Duration,
    look: Script,
    seen: Mutex<Seen>,
    /// Requests may have ended here that nobody has counted in the generation that is known.
    uncounted: AtomicBool,
    /// A request of an earlier generation has ended while this one was known.
    straggler: AtomicBool,
}

#[derive(Default)]
struct Seen {
    known: Option<Generation>,
    /// When this gateway last began one because of what was not counted.
    began: Option<Instant>,
    /// The largest number of a token that was met.
    number: u64,
}

/// Of the settling time: until a gateway begins a generation again.
const PAUSE: u32 = 8;

impl Generations {
    pub fn new(prefix: &str, settling: Duration) -> Self {
        let (key, look) = (format!("{prefix}:generation"), Script::new(LOOK));
        let (uncounted, straggler) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { key, settling, look, seen: Mutex::default(), uncounted, straggler }
    }

    /// As it was last seen.
    pub fn known(&self) -> Option<Generation> {
        self.on(|seen| seen.known.clone())
    }

    /// Nothing is known of it any more.
    pub fn forget(&self) {
        self.on(|seen| seen.known = None);
    }

    /// A request with a budget may have been counted by nobody.
    pub fn missed_one(&self) {
        self.uncounted.store(true, Ordering::SeqCst);
    }

    /// Money was found that is of a generation with this number, later than the one that is known. If that is no mistake of
    /// somebody who has not heard of the latest one, a clock has gone back: another generation is begun, later than both.
    pub fn met(&self, number: u64) {
        let is_later = self.on(|seen| {
            let is_later = number > seen.number;
            seen.number = seen.number.max(number);
            is_later
        });
        if is_later {
            self.missed_one();
        }
    }

    /// Whatever was let through until now will be found in the ledger when it is read for this generation.
    pub fn missed_none(&self) {
        self.uncounted.store(false, Ordering::SeqCst);
    }

    /// A request that was charged in a generation has ended without Redis having heard of it in the one that is known now.
    pub fn ended_in(&self, token: &str) {
        if self.known().is_some_and(|known| *known.token != *token) {
            self.straggler.store(true, Ordering::SeqCst);
        }
    }

    /// Whether there was one since the last call.
    pub fn take_straggler(&self) -> bool {
        self.straggler.swap(false, Ordering::SeqCst)
    }

    /// As it is. On another server than before it is another one.
    pub async fn look(&self, connection: &mut ConnectionManager) -> Result<Generation, RedisError> {
        self.read(connection, "").await
    }

    /// Begins another one than this if there is something that nobody has counted in it.
    pub async fn begin_where_uncounted(
        &self,
        generation: &Generation,
        connection: &mut ConnectionManager,
    ) -> Result<(), RedisError> {
        let paused = self.on(|seen| seen.began.is_some_and(|began| began.elapsed() < PAUSE * self.settling));
        if paused || !self.uncounted.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        self.read(connection, &generation.token).await.inspect_err(|_| self.missed_one())?;
        tracing::warn!("requests ended here that Redis was not told of: what was spent is read from the ledger again");
        self.on(|seen| seen.began = Some(Instant::now()));
        Ok(())
    }

    async fn read(&self, connection: &mut ConnectionManager, over: &str) -> Result<Generation, RedisError> {
        let info: String = redis::cmd("INFO").arg("server").query_async(connection).await?;
        let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or("unknown").trim();
        let mut call = self.look.key(&self.key);
        let call = call.arg(run_id).arg(Uuid::now_v7().simple().to_string()).arg(over);
        let call = call.arg(self.on(|seen| seen.number));
        let asked = Instant::now();
        let (token, age_ms): (String, u64) = call.invoke_async(connection).await?;
        let rest = self.settling.saturating_sub(Duration::from_millis(age_ms));
        let generation = Generation { token: token.into(), settled: Instant::now() + rest, due: asked + rest };
        self.on(|seen| {
            seen.known = Some(generation.clone());
            seen.number = seen.number.max(number_of(&generation.token));
        });
        Ok(generation)
    }

    fn on<T>(&self, act: impl FnOnce(&mut Seen) -> T) -> T {
        act(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn number_of(token: &str) -> u64 {
    token.split_once('-').and_then(|(number, _)| number.parse().ok()).unwrap_or_default()
}
