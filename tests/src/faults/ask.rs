//! One request and what came of it, as its client sees it.

use std::time::{Duration, Instant};

use proto::v1::{
    ChatMessage, ChatMessages, Finish, FinishReason, GenerateRequest, Sampling, generate_request::Input,
    inference_service_client::InferenceServiceClient,
};
use tonic::{Request, Status, transport::Channel};
use tonic_types::StatusExt as _;

/// What a client sets as its deadline.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// Long enough to be hit in the middle.
pub const TOKENS: u32 = 96;

/// One request with one answer.
#[derive(Clone, Debug)]
pub struct Question {
    /// Index of the tenant.
    pub tenant: usize,
    pub key: String,
    pub model: String,
    pub words: &'static str,
}

/// What came of a request.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub question: usize,
    pub tenant: usize,
    pub gateway: usize,
    pub began: Instant,
    pub ended: Instant,
    /// Whether a first message came, so that it was accepted.
    pub accepted: bool,
    pub text: String,
    /// Tokens of the answer that came.
    pub tokens: u64,
    pub outcome: Outcome,
}

#[derive(Clone, Debug)]
pub enum Outcome {
    Finished {
        request: String,
        prompt_tokens: u64,
        completion_tokens: u64,
        by_limit: bool,
    },
    /// By Banyan, with this reason: before the first message a refusal, after it the end of a stream.
    Refused(String),
    /// By nobody: the connection ended, or there was none.
    Unreachable(String),
    /// There was no end within the deadline and some more.
    Hung,
}

impl Attempt {
    pub const fn finished(&self) -> bool {
        matches!(self.outcome, Outcome::Finished { .. })
    }

    /// Whether it did not end as it should though another worker could have taken it: it had begun, or no worker was found.
    pub fn lost(&self) -> bool {
        match &self.outcome {
            Outcome::Finished { .. } => false,
            Outcome::Refused(reason) => self.accepted || reason == "WORKER_UNAVAILABLE",
            Outcome::Unreachable(_) | Outcome::Hung => true,
        }
    }
}

/// Asks and reads to the end.
pub async fn ask(
    client: &mut InferenceServiceClient<Channel>,
    at: usize,
    question: &Question,
    gateway: usize,
) -> Attempt {
    let began = Instant::now();
    let mut attempt = Attempt {
        question: at,
        tenant: question.tenant,
        gateway,
        began,
        ended: began,
        accepted: false,
        text: String::new(),
        tokens: 0,
        outcome: Outcome::Hung,
    };
    let read = read(client, question, &mut attempt);
    let outcome = match tokio::time::timeout(DEADLINE + DEADLINE / 3, read).await {
        Ok(Ok(finish)) => finished(&finish),
        Ok(Err(status)) => outcome_of(&status),
        Err(_) => Outcome::Hung,
    };
    Attempt { outcome, ended: Instant::now(), ..attempt }
}

async fn read(
    client: &mut InferenceServiceClient<Channel>,
    question: &Question,
    attempt: &mut Attempt,
) -> Result<Finish, Status> {
    let mut stream = client.generate(request(question)).await?.into_inner();
    while let Some(message) = stream.message().await? {
        attempt.accepted = true;
        attempt.text += &message.text;
        attempt.tokens += message.tokens.len() as u64;
        if let Some(finish) = message.finish {
            return Ok(finish);
        }
    }
    Err(Status::data_loss("the stream ended without a finish"))
}

fn request(question: &Question) -> Request<GenerateRequest> {
    let message = ChatMessage { role: "user".to_owned(), content: question.words.to_owned() };
    let mut request = Request::new(GenerateRequest {
        model: question.model.clone(),
        input: Some(Input::Chat(ChatMessages { messages: vec![message] })),
        sampling: Some(Sampling { temperature: Some(0.0), ..Sampling::default() }),
        max_tokens: TOKENS,
        ignore_eos: true,
        ..GenerateRequest::default()
    });
    request.set_timeout(DEADLINE);
    let bearer = format!("Bearer {}", question.key).parse().expect("a key fits a header");
    request.metadata_mut().insert("authorization", bearer);
    request
}

fn finished(finish: &Finish) -> Outcome {
    let usage = finish.usage.unwrap_or_default();
    let receipt = finish.receipt.clone().unwrap_or_default();
    Outcome::Finished {
        request: receipt.request_id,
        prompt_tokens: usage.prompt_tokens.into(),
        completion_tokens: usage.completion_tokens.into(),
        by_limit: finish.reason == i32::from(FinishReason::Budget),
    }
}

fn outcome_of(status: &Status) -> Outcome {
    match status.get_details_error_info() {
        Some(info) if info.domain == "banyan" => Outcome::Refused(info.reason),
        _ => Outcome::Unreachable(format!("{:?}: {}", status.code(), status.message())),
    }
}
