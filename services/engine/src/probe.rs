//! Does an adapter change anything? Measured on a fixed text, through the serving path.

use domain::{Fault, Reason};

use crate::events::Event;
use crate::handle::EngineHandle;
use crate::request::GenerateRequest;
use crate::residents::AdapterKey;

/// Some of everything that adapters are trained on.
const TEXT: &str =
    "What does code E-17 mean? Please answer in one sentence. 请用一句话回答:第 3 条是什么意思? {\"id\": 42}";
const TOKENS_MAX: usize = 64;

impl EngineHandle {
    /// The largest absolute change of a token's log-probability that the adapter makes on a fixed text.
    ///
    /// # Errors
    /// Those of [`EngineHandle::submit`], and `ADAPTER_LOAD` if the adapter cannot be served.
    pub async fn probe(&self, adapter: AdapterKey) -> Result<f32, Fault> {
        let base = self.score(self.probe_request(adapter, None)?).await?;
        let adapted = self.score(self.probe_request(adapter, Some(adapter))?).await?;
        Ok(base.iter().zip(&adapted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max))
    }

    /// The log-probability of every prompt token after the first (natural logarithm) under this request's model.
    ///
    /// # Errors
    /// Those of [`EngineHandle::submit`], and whatever ends the request early.
    pub async fn score(&self, request: GenerateRequest) -> Result<Vec<f32>, Fault> {
        let mut events = self.submit(GenerateRequest { prompt_logprobs: true, max_tokens: 0, ..request })?;
        let mut scores = Vec::new();
        while let Some(event) = events.next().await {
            match event {
                Event::PromptLogprobs(logprobs) => scores = logprobs,
                Event::Failed(fault) => return Err(fault),
                Event::Step { .. } | Event::Parked | Event::Done { .. } => {}
            }
        }
        Ok(scores)
    }

    fn probe_request(&self, adapter: AdapterKey, with: Option<AdapterKey>) -> Result<GenerateRequest, Fault> {
        let mut prompt = self.text().encode(TEXT).map_err(|error| Fault::new(Reason::Internal, error.to_string()))?;
        prompt.truncate(TOKENS_MAX.min(self.context_length()));
        Ok(GenerateRequest {
            id: "probe".to_owned(),
            adapter: with,
            ..GenerateRequest::greedy(adapter.tenant, prompt, 0)
        })
    }
}
