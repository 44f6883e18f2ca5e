//! The story of a generation: resolve the model, tokenize, reserve, pick a worker, relay, settle.
//!
//! Each step can refuse, and whatever was taken by the steps before it gives itself back. Parsing comes before
//! (`parse`), so do authentication and the deadline (`guard`); what is relayed becomes messages in `inference`.

use std::sync::Arc;

use domain::{Detail, Fault, ModelName, Price, Reason, TenantId};
use store::Hold;
use time::OffsetDateTime;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument as _, info_span};

use crate::{
    auth::Identity,
    config::{GatewayConfig, ms},
    guard::Session,
    ledger::Ledger,
    limits::{Admission, Ask, Lease, Left, Reservation},
    meter::Meter,
    metrics::Metrics,
    models::{Models, PinnedModel, tenant_of},
    parse::{GenerateRequest, Input},
    prices::Prices,
    relay::{self, Allowance, Grants, Relayed, Resumable},
    shadow::Shadows,
    workers::{Answer, Job, Workers},
};

/// What a request costs, and where that is written. Cheap to clone.
#[derive(Clone)]
pub struct Books {
    pub prices: Prices,
    pub ledger: Ledger,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Generator {
    pub models: Models,
    shadows: Shadows,
    admission: Admission,
    workers: Workers,
    books: Books,
    pub metrics: Metrics,
    pub config: Arc<GatewayConfig>,
    relays: TaskTracker,
    stop: CancellationToken,
}

impl Generator {
    pub fn new(
        models: Models,
        shadows: Shadows,
        admission: Admission,
        workers: Workers,
        books: Books,
        config: Arc<GatewayConfig>,
        (relays, stop): (TaskTracker, CancellationToken),
    ) -> Self {
        Self { models, shadows, admission, workers, books, metrics: Metrics::default(), config, relays, stop }
    }

    /// Ends when the first step of the answer is there; the rest is relayed by a task of its own.
    pub async fn generate(&self, session: Session, request: GenerateRequest) -> Result<Relayed, Fault> {
        let (tenant, _) = tenant_of(&session.identity)?;
        let resolving = self.models.resolve(&session.identity, &request.model, request.routing_key.as_deref());
        let model = resolving.instrument(info_span!("resolve")).await?;
        let prompt = self.workers.tokenize(tenant, &request.input, session.id, session.deadline).await?;
        let max_tokens = self.fit(prompt.len(), request.max_tokens, model.base.context_length)?;
        let price = self.books.prices.of(tenant, &request.model).await?;
        let place = self.books.ledger.place()?;
        let reserving = self.reserve(&session, prompt.len(), max_tokens, price).instrument(info_span!("reserve"));
        let reservation = reserving.await?;
        let hold = self.hold(&session, &request.model, &model, &reservation, price, (prompt.len(), max_tokens))?;
        let record = hold.record();
        let open = place.begin(hold).instrument(info_span!("log")).await?;
        let (lease, granted) = (reservation.lease().clone(), reservation.granted());
        let mut meter = Meter::start(&session, record, price, reservation, open, self.metrics.clone());
        let job = job(tenant, &session, &model, prompt, Tokens { max_tokens, granted }, request);
        let picking = self
            .workers
            .generate(&job, session.deadline, |worker| meter.reached(worker))
            .instrument(info_span!("pick", adapter = job.pin.map(|pin| tracing::field::display(pin.digest))));
        // The first step may be long in coming: a queue, an adapter to load, a long prompt.
        let picked = lease.keep_during(ms(self.config.limits.renew_ms), picking).await;
        match picked {
            Ok(answer) => {
                let pair = model.shadow.as_ref();
                let shadow = pair.and_then(|pair| self.shadows.copy(tenant, pair, &job, session.arrived));
                Ok(self.relay(answer, meter, lease, job, &session).shadowed_by(shadow))
            }
            Err(fault) => {
                meter.fail(&fault);
                Err(fault)
            }
        }
    }

    /// How many tokens an input has; charges nothing.
    pub async fn count_tokens(&self, session: &Session, model: &ModelName, input: &Input) -> Result<u32, Fault> {
        let (tenant, _) = tenant_of(&session.identity)?;
        self.models.describe(&session.identity, model).await?;
        let ids = self.workers.tokenize(tenant, input, session.id, session.deadline).await?;
        u32::try_from(ids.len()).map_err(|_| Fault::internal())
    }

    /// The most tokens that the answer may have: as asked, else the default or what the context has left.
    fn fit(&self, prompt: usize, asked: Option<u32>, context: u32) -> Result<u32, Fault> {
        let prompt = u32::try_from(prompt).unwrap_or(u32::MAX);
        if prompt == 0 {
            return Err(Fault::invalid("input", "has no tokens"));
        }
        let left = context.saturating_sub(prompt);
        let answer = asked.unwrap_or_else(|| self.config.generate.max_tokens_default.min(left.max(1)));
        if answer <= left {
            return Ok(answer);
        }
        let words = format!(
            "the prompt has {prompt} tokens and the answer may have {answer}: together more than the context of {context}"
        );
        let reason = Reason::ContextLength.as_str().to_owned();
        let violation = Detail::Violation { field: "input".to_owned(), reason, description: words.clone() };
        Err(Fault::new(Reason::ContextLength, words).detail(violation))
    }

    async fn reserve(
        &self,
        session: &Session,
        prompt: usize,
        max_tokens: u32,
        price: Price,
    ) -> Result<Reservation, Fault> {
        let output = max_tokens.min(self.config.generate.grant_tokens);
        let ask = self.ask(session, u32::try_from(prompt).unwrap_or(u32::MAX), output, price)?;
        self.admission.reserve(ask).await
    }

    /// What the caller has left of its limits per minute; charges nothing.
    pub async fn limits_left(&self, session: &Session) -> Result<Vec<Left>, Fault> {
        Ok(self.admission.left(&self.ask(session, 0, 0, Price::default())?).await)
    }

    fn ask(&self, session: &Session, input_tokens: u32, output_tokens: u32, price: Price) -> Result<Ask, Fault> {
        let (tenant, key) = tenant_of(&session.identity)?;
        let Identity { limits, key_limits, outage, .. } = session.identity;
        Ok(Ask {
            id: session.id,
            tenant,
            key,
            input_tokens,
            output_tokens,
            of_tenant: limits.into(),
            of_key: key_limits.into(),
            price,
            lease: ms(self.config.limits.lease_ms),
            outage,
        })
    }

    /// What the ledger holds for the request until it ends.
    fn hold(
        &self,
        session: &Session,
        name: &ModelName,
        model: &PinnedModel,
        reservation: &Reservation,
        price: Price,
        (prompt, answer): (usize, u32),
    ) -> Result<Hold, Fault> {
        let (tenant, api_key) = tenant_of(&session.identity)?;
        let ends_within = session.deadline.left() + ms(self.config.ledger.sync_wait_ms);
        Ok(Hold {
            tenant,
            request: session.id,
            api_key,
            model: name.to_string(),
            adapter_digest: model.pin.map(|pin| pin.digest),
            base_digest: model.base.digest,
            at: reservation.at(),
            deadline: OffsetDateTime::now_utc() + ends_within,
            price,
            prompt_tokens: prompt as u64,
            answer_tokens_max: answer.into(),
            held: reservation.cost(),
            process: self.admission.process(),
        })
    }

    fn relay(&self, answer: Answer, meter: Meter, lease: Lease, job: Job, session: &Session) -> Relayed {
        let allowance = Allowance {
            granted: job.granted_tokens,
            max_tokens: job.max_tokens,
            step: self.config.generate.grant_tokens,
        };
        let grants = Grants::new(lease, answer.extender(), allowance);
        let terms = relay::Terms {
            base: job.base,
            adapter: job.pin.map(|pin| pin.digest),
            session: session.clone(),
            renew: ms(self.config.limits.renew_ms),
            write_wait: ms(self.config.ledger.sync_wait_ms),
            buffer: self.config.generate.stream_buffer_max,
        };
        let resumes_max = self.config.workers.resumes_max;
        let answer = Resumable::new(answer, job, self.workers.clone(), session.deadline, resumes_max);
        let (relaying, relayed) = relay::relay(answer, meter, grants, terms, self.stop.clone());
        self.relays.spawn(relaying.instrument(info_span!("relay")));
        relayed
    }
}

/// Of an answer.
struct Tokens {
    max_tokens: u32,
    granted: u32,
}

fn job(
    tenant: TenantId,
    session: &Session,
    model: &PinnedModel,
    prompt: Vec<u32>,
    tokens: Tokens,
    request: GenerateRequest,
) -> Job {
    Job {
        id: session.id,
        tenant,
        share: session.identity.share,
        share_group: session.identity.share_group,
        pin: model.pin,
        base: model.base.digest,
        prompt,
        sampling: request.sampling,
        max_tokens: tokens.max_tokens,
        granted_tokens: tokens.granted,
        generated: Vec::new(),
        text_bytes: 0,
        stop: request.stop,
        logprobs: request.logprobs,
        ignore_eos: request.ignore_eos,
        response_format: request.response_format,
    }
}
