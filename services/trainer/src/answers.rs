//! The same questions to candidate, current version and base: their greedy answers, and how likely each held the expected
//! one. All of it runs in the serving engine, many questions and all systems in one batch.

use domain::{Fault, TenantId};
use engine::{AdapterKey, EngineHandle, Event, GenerateRequest, text::TextError};
use evaluation::{Item, Observed, Suite};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::question::Question;

/// Who is asked besides the base.
#[derive(Clone, Copy, Debug)]
pub struct Contest {
    pub candidate: AdapterKey,
    /// What answers today, if anything does.
    pub current: Option<AdapterKey>,
}

#[derive(Clone, Copy, Debug)]
pub struct AnswerOptions {
    /// Longer answers are cut, and wrong.
    pub tokens_max: u32,
    /// Questions at the same time.
    pub at_once: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    #[error("{id}: {error}")]
    Text { id: String, error: TextError },
    #[error("{id}: with its answer it has {tokens} tokens, and this base takes {most}: leave it out or shorten it")]
    TooLong { id: String, tokens: usize, most: usize },
    #[error("{0}: the chat template writes an answer otherwise when it stands in a conversation: it cannot be judged")]
    Template(String),
    #[error("{id}: {fault}")]
    Engine { id: String, fault: Fault },
}

/// Asks everything of everybody. Items come in the order of the questions; `done` is told after each.
///
/// # Errors
/// A question that this base cannot take; what the engine refuses.
pub async fn answer_all(
    engine: &EngineHandle,
    name: &str,
    questions: &[Question],
    contest: Contest,
    options: AnswerOptions,
    done: impl Fn(),
) -> Result<Suite, AnswerError> {
    let encoded: Vec<Encoded> = questions.iter().map(|question| encode(engine, question)).collect::<Result<_, _>>()?;
    let items = stream::iter(questions.iter().zip(&encoded)).map(|(question, encoded)| {
        let ask = Ask { engine, question, encoded, tokens_max: options.tokens_max };
        let done = &done;
        async move {
            let item = ask.everybody(contest).await;
            done();
            item
        }
    });
    let items = items.buffered(options.at_once.max(1)).try_collect().await?;
    Ok(Suite { name: name.to_owned(), items })
}

/// A question as the engine takes it.
struct Encoded {
    prompt: Vec<u32>,
    /// With the token that ends it.
    expected: Vec<u32>,
}

struct Ask<'a> {
    engine: &'a EngineHandle,
    question: &'a Question,
    encoded: &'a Encoded,
    tokens_max: u32,
}

fn encode(engine: &EngineHandle, question: &Question) -> Result<Encoded, AnswerError> {
    let Question { id, asked, expected } = question;
    let tokens = |messages: &[_]| {
        let tokens = engine.text().encode_chat(messages);
        tokens.map_err(|error| AnswerError::Text { id: id.clone(), error })
    };
    let prompt = tokens(asked)?;
    let mut whole = asked.clone();
    whole.push(engine::text::ChatMessage { role: "assistant".to_owned(), content: expected.clone() });
    let whole = tokens(&whole)?;
    let ends = &engine.model().config().eos_token_ids;
    let answer = whole.strip_prefix(prompt.as_slice()).ok_or_else(|| AnswerError::Template(id.clone()))?;
    let end = answer.iter().position(|token| ends.contains(token));
    let end = end.ok_or_else(|| AnswerError::Template(id.clone()))?;
    let encoded = Encoded { prompt, expected: answer[..=end].to_vec() };
    let (tokens, most) = (encoded.prompt.len() + encoded.expected.len(), engine.context_length());
    if tokens > most {
        return Err(AnswerError::TooLong { id: id.clone(), tokens, most });
    }
    Ok(encoded)
}

impl Ask<'_> {
    async fn everybody(&self, contest: Contest) -> Result<Item, AnswerError> {
        let current = async {
            match contest.current {
                Some(current) => self.one(Some(current)).await.map(Some),
                None => Ok(None),
            }
        };
        let all = futures::try_join!(self.one(Some(contest.candidate)), current, self.one(None));
        let (candidate, current, base) =
            all.map_err(|fault| AnswerError::Engine { id: self.question.id.clone(), fault })?;
        let Question { id, expected, .. } = self.question;
        Ok(Item { id: id.clone(), expected: expected.clone(), candidate, current, base })
    }

    async fn one(&self, adapter: Option<AdapterKey>) -> Result<Observed, Fault> {
        let (answer, nll) = futures::try_join!(self.greedy(adapter), self.nll(adapter))?;
        let tokens = u32::try_from(self.encoded.expected.len()).unwrap_or(u32::MAX);
        Ok(Observed { answer, nll, tokens, has_form: None })
    }

    async fn greedy(&self, adapter: Option<AdapterKey>) -> Result<String, Fault> {
        let Self { engine, encoded, tokens_max, .. } = *self;
        let room = engine.context_length() - encoded.prompt.len();
        let most = u32::try_from(room).unwrap_or(u32::MAX).min(tokens_max);
        let request =
            GenerateRequest { adapter, ..GenerateRequest::greedy(group(adapter), encoded.prompt.clone(), most) };
        let (mut events, mut answer) = (engine.submit(request)?, String::new());
        while let Some(event) = events.next().await {
            match event {
                Event::Step { text, .. } => answer.push_str(&text),
                Event::Failed(fault) => return Err(fault),
                Event::PromptLogprobs(_) | Event::Parked | Event::Done { .. } => {}
            }
        }
        Ok(answer)
    }

    /// Of the expected answer after the prompt, in nats.
    async fn nll(&self, adapter: Option<AdapterKey>) -> Result<f64, Fault> {
        let Encoded { prompt, expected } = self.encoded;
        let whole = [prompt.as_slice(), expected].concat();
        let request = GenerateRequest { adapter, ..GenerateRequest::greedy(group(adapter), whole, 0) };
        let logprobs = self.engine.score(request).await?;
        // The first token of all has no probability.
        Ok(-logprobs.iter().skip(prompt.len() - 1).map(|logprob| f64::from(*logprob)).sum::<f64>())
    }
}

/// The share group of KV: an adapter's own.
fn group(adapter: Option<AdapterKey>) -> TenantId {
    adapter.map_or_else(crate::nobody, |key| key.tenant)
}
