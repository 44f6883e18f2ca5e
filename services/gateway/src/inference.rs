//! The public door's edge: `banyan.v1.InferenceService`.

use std::pin::Pin;

use domain::{Fault, ModelName, RequestId, VersionSelector};
use futures::{Stream, StreamExt as _};
use proto::v1::{self, inference_service_server::InferenceService};
use store::{FinishReason, Page, Store};
use tonic::{Request, Response, Status};

use crate::{
    access,
    admin::{hypothetical, wire_explained},
    edge::{answer, refuse, session},
    explain::{Explainer, Whose},
    generate::Generator,
    guard::Session,
    limits::Left,
    models::{PinnedModel, tenant_of},
    parse::{self, Violations},
    repeats::{Answering, Repeats},
    store_fault::StoreFault as _,
    workers::{Finished, Step, Workers},
};

/// Begins the page tokens of [`InferenceService::list_models`] that lead past the base.
const ADAPTERS_FROM: &str = "a";

pub struct Inference {
    generator: Generator,
    repeats: Repeats,
    explainer: Explainer,
    store: Store,
    workers: Workers,
}

impl Inference {
    pub const fn new(
        generator: Generator,
        repeats: Repeats,
        explainer: Explainer,
        store: Store,
        workers: Workers,
    ) -> Self {
        Self { generator, repeats, explainer, store, workers }
    }

    /// Checks a request and begins its answer.
    pub async fn begin(&self, session: Session, request: v1::GenerateRequest) -> Result<Answering, Fault> {
        let started = async {
            let request = parse::generate(request, &self.generator.config.generate, draw_seed)?;
            self.repeats.answer(&self.generator, session, request).await
        };
        started.await.inspect_err(|fault| self.generator.metrics.refused(fault))
    }

    /// What the caller has left of its limits per minute.
    pub async fn limits_left(&self, session: &Session) -> Result<Vec<Left>, Fault> {
        self.generator.limits_left(session).await
    }

    pub async fn model(&self, session: &Session, name: &str) -> Result<v1::Model, Fault> {
        let name: ModelName = parse::name("name", name)?;
        let model = self.generator.models.describe(&session.identity, &name).await?;
        Ok(wire_model(&name, &model))
    }

    /// The base comes first, then the adapters by name.
    pub async fn models(&self, session: &Session, page: Page) -> Result<v1::ListModelsResponse, Fault> {
        let (tenant, _) = tenant_of(&session.identity)?;
        let base = self.workers.base()?;
        let mut models = Vec::new();
        let mut page = page;
        if page.token.is_empty() {
            if access::admit_model(&ModelName::Base, session.identity.models.as_deref()).is_ok() {
                let display_name = "base model".to_owned();
                let model = PinnedModel { base: base.clone(), pin: None, shadow: None, display_name, updated_at: None };
                models.push(wire_model(&ModelName::Base, &model));
            }
            page.size -= 1;
        } else {
            let token = page.token.strip_prefix(ADAPTERS_FROM);
            page.token =
                token.ok_or_else(|| Fault::invalid("page_token", "is not one that this list gave out"))?.to_owned();
        }
        if page.size == 0 {
            return Ok(v1::ListModelsResponse { models, next_page_token: ADAPTERS_FROM.to_owned() });
        }
        let found = self.store.tenant(tenant).list_models(&page).await.map_err(|error| error.fault("models"))?;
        let domain::Caller::Tenant { slug, .. } = &session.identity.caller else { return Err(Fault::internal()) };
        // What was made for another base is not served, so it is no model here.
        let served = found.items.into_iter().filter(|model| model.base_digest == base.digest);
        let named = served.map(|model| {
            let (tenant, adapter) = (slug.clone(), model.adapter.clone());
            (ModelName::Adapter { tenant, adapter, version: VersionSelector::live() }, model)
        });
        let scope = session.identity.models.as_deref();
        let usable = named.filter(|(name, _)| access::admit_model(name, scope).is_ok());
        models.extend(usable.map(|(name, model)| v1::Model {
            name: name.to_string(),
            display_name: model.display_name,
            adapter_digest: model.digest.to_string(),
            base_digest: model.base_digest.to_string(),
            context_length: base.context_length,
            update_time: Some(parse::wire_time(model.updated_at)),
        }));
        let next = &found.next_page_token;
        let next_page_token = if next.is_empty() { String::new() } else { format!("{ADAPTERS_FROM}{next}") };
        Ok(v1::ListModelsResponse { models, next_page_token })
    }
}

#[tonic::async_trait]
impl InferenceService for Inference {
    type GenerateStream = Pin<Box<dyn Stream<Item = Result<v1::GenerateResponse, Status>> + Send>>;

    async fn generate(&self, request: Request<v1::GenerateRequest>) -> Result<Response<Self::GenerateStream>, Status> {
        let session = session(request.extensions())?;
        let id = session.id;
        let begun = self.begin(session, request.into_inner()).await.map_err(|fault| refuse(&fault, id))?;
        let (run, seed) = (begun.id, begun.seed);
        let messages = begun.steps.map(move |step| match step {
            Ok(step) => Ok(wire_step(step, run, seed)),
            Err(fault) => Err(refuse(&fault, id)),
        });
        Ok(Response::new(messages.boxed()))
    }

    async fn count_tokens(
        &self,
        request: Request<v1::CountTokensRequest>,
    ) -> Result<Response<v1::CountTokensResponse>, Status> {
        answer(request, |session, message| async move {
            let (model, input) = parse::input(message, &self.generator.config.generate)?;
            let tokens = self.generator.count_tokens(&session, &model, &input).await?;
            Ok(v1::CountTokensResponse { tokens })
        })
        .await
    }

    async fn list_models(
        &self,
        request: Request<v1::ListModelsRequest>,
    ) -> Result<Response<v1::ListModelsResponse>, Status> {
        answer(request, |session, message| async move {
            self.models(&session, parse::page(message.page_size, message.page_token)?).await
        })
        .await
    }

    async fn explain_limits(
        &self,
        request: Request<v1::ExplainLimitsRequest>,
    ) -> Result<Response<v1::ExplainLimitsResponse>, Status> {
        answer(request, |session, message| async move {
            let (tenant, key) = tenant_of(&session.identity)?;
            let mut violations = Violations::default();
            violations.require(
                "name",
                message.name.is_empty(),
                "must be empty: this door explains the calling key's own",
            );
            let hypothetical = hypothetical(&mut violations, &message);
            let hypothetical = violations.check(hypothetical)?;
            let (limits, outage) = (session.identity.limits, session.identity.outage);
            let whose = Whose { tenant, key: Some((key, session.identity.key_limits)), limits, outage };
            Ok(wire_explained(&self.explainer.explain(whose, hypothetical).await?))
        })
        .await
    }

    async fn get_model(&self, request: Request<v1::GetModelRequest>) -> Result<Response<v1::Model>, Status> {
        answer(request, |session, message| async move { self.model(&session, &message.name).await }).await
    }
}

fn wire_model(name: &ModelName, model: &PinnedModel) -> v1::Model {
    v1::Model {
        name: name.to_string(),
        display_name: model.display_name.clone(),
        adapter_digest: model.pin.map(|pin| pin.digest.to_string()).unwrap_or_default(),
        base_digest: model.base.digest.to_string(),
        context_length: model.base.context_length,
        update_time: model.updated_at.map(parse::wire_time),
    }
}

/// One that a client whose numbers are doubles can send back as it was told.
fn draw_seed() -> u64 {
    rand::random::<u64>() >> 11
}

pub fn wire_step(step: Step, id: RequestId, seed: u64) -> v1::GenerateResponse {
    v1::GenerateResponse {
        text: step.text,
        tokens: step.tokens,
        finish: step.finished.map(|finished| wire_finish(&finished, id, seed)),
    }
}

fn wire_finish(finished: &Finished, id: RequestId, seed: u64) -> v1::Finish {
    let reason = match finished.reason {
        FinishReason::Eos => v1::FinishReason::Eos,
        FinishReason::Stop => v1::FinishReason::Stop,
        FinishReason::Length => v1::FinishReason::Length,
        FinishReason::Budget => v1::FinishReason::Budget,
    };
    let count = |tokens: u64| u32::try_from(tokens).unwrap_or(u32::MAX);
    let used = &finished.used;
    v1::Finish {
        reason: reason.into(),
        usage: Some(v1::Usage {
            prompt_tokens: count(used.prompt_tokens),
            cached_prompt_tokens: count(used.cached_prompt_tokens),
            completion_tokens: count(used.completion_tokens),
        }),
        receipt: Some(v1::Receipt {
            base_digest: finished.base.to_string(),
            adapter_digest: finished.adapter.map(|digest| digest.to_string()).unwrap_or_default(),
            worker: used.worker.clone(),
            tokens: count(used.prompt_tokens + used.completion_tokens),
            request_id: id.to_string(),
        }),
        seed,
        limits: finished.limits.clone(),
    }
}
