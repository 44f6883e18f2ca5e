//! The shipped model, a scripted registry, and answers collected whole.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, LazyLock, Mutex};
use std::time::{Duration, Instant};

use adapters::{Container, Files, Limits};
use domain::{Digest, Fault, TenantId};
use engine::model::{Dtype, Model, ModelOptions};
use engine::text::{ChatMessage, TextModel};
use engine::{
    AdapterFault, AdapterKey, AdapterSource, Engine, EngineConfig, EngineHandle, Event, EventStream, FinishReason,
    GenerateRequest, ResidentStatus, Token, Usage,
};

pub const INDUSTRIES: [&str; 4] = ["finance", "healthcare", "legal", "manufacturing"];

pub static MODEL: LazyLock<Arc<Model>> = LazyLock::new(|| {
    Arc::new(Model::load(&data("seed/base"), &ModelOptions::new(Dtype::F32)).expect("the shipped base loads"))
});

pub static TEXT: LazyLock<TextModel> =
    LazyLock::new(|| TextModel::load(&data("seed/base")).expect("the shipped tokenizer loads"));

/// Files and version digest of each shipped adapter.
static SHIPPED: LazyLock<HashMap<&str, (Files, Digest)>> = LazyLock::new(|| {
    let read = |name| {
        let limits = Limits::default();
        let files = Files::read(&data(&format!("industries/{name}")), &limits).expect("the shipped adapter is whole");
        let weights = Container::parse(files.weights.clone(), &limits).expect("the shipped adapter parses");
        let plan = adapters::judge(&files.config, &weights, MODEL.base(), &limits).expect("it fits the base");
        (name, (files, plan.digest))
    };
    INDUSTRIES.into_iter().map(read).collect()
});

pub fn data(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../adapters").join(path)
}

pub fn tenant(n: u128) -> TenantId {
    TenantId::new(uuid::Uuid::from_u128(n))
}

pub fn key(industry: &str) -> AdapterKey {
    AdapterKey { tenant: tenant(1), digest: SHIPPED[industry].1 }
}

pub fn files(industry: &str) -> Files {
    SHIPPED[industry].0.clone()
}

/// A registry that has the shipped adapters and whatever else a test puts in, and whose answers can be held back.
#[derive(Clone, Default)]
pub struct Source {
    state: Arc<(Mutex<SourceState>, Condvar)>,
}

#[derive(Default)]
struct SourceState {
    extra: HashMap<AdapterKey, Script>,
    held: Vec<AdapterKey>,
    loads: Vec<AdapterKey>,
}

#[derive(Clone)]
pub enum Script {
    Give(Files),
    Panic,
}

impl Source {
    pub fn put(&self, key: AdapterKey, script: Script) {
        self.state.0.lock().unwrap().extra.insert(key, script);
    }

    /// Loads of this adapter do not end before `let_go`.
    pub fn hold(&self, key: AdapterKey) {
        self.state.0.lock().unwrap().held.push(key);
    }

    pub fn let_go(&self) {
        self.state.0.lock().unwrap().held.clear();
        self.state.1.notify_all();
    }

    pub fn loads(&self, key: AdapterKey) -> usize {
        self.state.0.lock().unwrap().loads.iter().filter(|loaded| **loaded == key).count()
    }
}

impl AdapterSource for Source {
    fn load(&self, key: &AdapterKey) -> Result<Files, AdapterFault> {
        let mut state = self.state.0.lock().unwrap();
        state.loads.push(*key);
        let state = self.state.1.wait_while(state, |state| state.held.contains(key)).unwrap();
        let script = state.extra.get(key).cloned();
        drop(state);
        match script {
            Some(Script::Give(files)) => Ok(files),
            Some(Script::Panic) => panic!("a scripted crash of the source"),
            None => {
                let shipped = SHIPPED.values().find(|(_, digest)| *digest == key.digest);
                shipped.map(|(files, _)| files.clone()).ok_or(AdapterFault::NotFound)
            }
        }
    }
}

pub fn start(config: EngineConfig) -> EngineHandle {
    start_with(config, Source::default())
}

pub fn start_with(config: EngineConfig, source: Source) -> EngineHandle {
    Engine::start(Arc::clone(&MODEL), TEXT.clone(), config, Box::new(source)).expect("the engine starts")
}

/// KV memory for this many blocks.
pub fn kv(blocks: usize) -> EngineConfig {
    EngineConfig { kv_bytes_max: (blocks * MODEL.block_bytes()) as u64, ..EngineConfig::default() }
}

/// Token ids of a user's question as the model was trained to see it.
pub fn chat(question: &str) -> Vec<u32> {
    TEXT.encode_chat(&[ChatMessage { role: "user".into(), content: question.into() }]).expect("the template renders")
}

/// Questions of an industry's held-out set.
pub fn questions(industry: &str) -> Vec<String> {
    let text = std::fs::read_to_string(data(&format!("industries/{industry}/data/eval.jsonl"))).expect("shipped");
    let question = |line: &str| {
        let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
        record["messages"][0]["content"].as_str().expect("a question").to_owned()
    };
    text.lines().map(question).collect()
}

/// A greedy question to an industry's adapter.
pub fn ask(industry: &str, question: &str, max_tokens: u32) -> GenerateRequest {
    GenerateRequest { adapter: Some(key(industry)), ..ask_base(question, max_tokens) }
}

pub fn ask_base(question: &str, max_tokens: u32) -> GenerateRequest {
    GenerateRequest::greedy(tenant(1), chat(question), max_tokens)
}

/// An answer that has ended well.
#[derive(Clone, Debug, PartialEq)]
pub struct Whole {
    pub text: String,
    pub tokens: Vec<Token>,
    pub reason: FinishReason,
    pub usage: Usage,
    pub prompt_logprobs: Option<Vec<f32>>,
    pub adapter_digest: Option<Digest>,
}

impl Whole {
    pub fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect()
    }

    /// All that must not depend on the company, floats as bits.
    pub fn content(&self) -> (String, Vec<(u32, Option<u32>)>, FinishReason) {
        let tokens = self.tokens.iter().map(|token| (token.id, token.logprob.map(f32::to_bits))).collect();
        (self.text.clone(), tokens, self.reason)
    }
}

/// Reads a stream to its end.
pub fn collect(mut events: EventStream) -> Result<Whole, Fault> {
    let (mut text, mut tokens, mut prompt_logprobs) = (String::new(), Vec::new(), None);
    loop {
        match events.blocking_next().expect("a stream ends with `Done` or `Failed`") {
            Event::Parked => {}
            Event::PromptLogprobs(logprobs) => prompt_logprobs = Some(logprobs),
            Event::Step { text: more, tokens: new } => {
                text += &more;
                tokens.extend(new);
            }
            Event::Failed(fault) => {
                assert!(events.blocking_next().is_none());
                return Err(fault);
            }
            Event::Done { reason, usage, adapter_digest, base_digest } => {
                assert_eq!(base_digest, MODEL.base().digest());
                assert!(events.blocking_next().is_none());
                return Ok(Whole { text, tokens, reason, usage, prompt_logprobs, adapter_digest });
            }
        }
    }
}

pub fn answer(engine: &EngineHandle, request: GenerateRequest) -> Result<Whole, Fault> {
    collect(engine.submit(request)?)
}

/// Waits until the engine's status is so; fails the test if that takes unreasonably long.
pub fn wait(engine: &EngineHandle, what: &str, condition: impl Fn(&engine::Status) -> bool) {
    assert!(engine.wait_for(Duration::from_secs(120), condition), "{what}: {:?}", engine.status());
}

/// Nothing runs, waits or is leased, and every KV block can be had.
pub fn is_at_rest(status: &engine::Status) -> bool {
    status.running == 0
        && status.waiting == 0
        && status.kv_blocks_free + status.kv_blocks_cached == status.kv_blocks_total
        && status.adapters_leased == 0
}

/// The adapters in memory or on their way.
pub fn residents(engine: &EngineHandle) -> Arc<[ResidentStatus]> {
    block_on(engine.residents())
}

/// Whether the adapter is in memory.
pub fn is_resident(engine: &EngineHandle, key: AdapterKey) -> bool {
    engine.is_resident(&key)
}

/// Asks for the list of residents until it is so; each time is a turn of the engine.
pub fn wait_residents(engine: &EngineHandle, what: &str, condition: impl Fn(&[ResidentStatus]) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !condition(&residents(engine)) {
        assert!(Instant::now() < deadline, "{what}: {:?}", residents(engine));
    }
}

/// Drives a future on this thread, which shows that no runtime is needed.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}
