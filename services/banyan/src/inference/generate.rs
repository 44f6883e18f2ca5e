//! `banyan generate`: one request, its text streamed to standard output as it comes.

use std::{
    io::{IsTerminal as _, Read as _},
    path::PathBuf,
};

use proto::v1::{
    ChatMessages, Finish, GenerateRequest, GenerateResponse, JsonObject, ResponseFormat, Token,
    generate_request::Input, response_format::Format,
};
use serde_json::json;
use tonic::Streaming;

use super::{message, sampling};
use crate::{
    cli::{FormatArgs, GenerateArgs},
    client,
    failure::{Failure, Outcome},
    output::{self, json, short_digest},
};

/// # Errors
/// The server's refusal, before or in the middle of the answer.
pub async fn generate(args: GenerateArgs, as_json: bool) -> Outcome {
    let request = request(&args)?;
    let mut client = client::inference(&args.connection).await?;
    let mut answer = client.generate(request).await?.into_inner();
    if as_json {
        return print_whole(&mut answer, &args.model.to_string()).await;
    }
    let finish = relay(&mut answer).await?;
    if args.verbose {
        report(&finish);
    }
    Ok(())
}

fn request(args: &GenerateArgs) -> Result<GenerateRequest, Failure> {
    let mut prompt = args.prompt.clone();
    if prompt == "-" {
        prompt.clear();
        std::io::stdin().read_to_string(&mut prompt)?;
    }
    let input = if args.raw {
        Input::Prompt(prompt)
    } else {
        let system = args.system.iter().map(|text| message("system", text));
        Input::Chat(ChatMessages { messages: system.chain([message("user", prompt)]).collect() })
    };
    Ok(GenerateRequest {
        model: args.model.to_string(),
        input: Some(input),
        sampling: Some(sampling(&args.sampling)),
        max_tokens: args.sampling.max_tokens.unwrap_or(0),
        stop: args.sampling.stop.clone(),
        logprobs: args.logprobs,
        ignore_eos: args.ignore_eos,
        response_format: response_format(&args.format)?,
        client_request_id: args.client_request_id.clone().unwrap_or_default(),
        routing_key: args.routing_key.clone(),
    })
}

fn response_format(args: &FormatArgs) -> Result<Option<ResponseFormat>, Failure> {
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
    };
    let format = if let Some(path) = &args.json_schema {
        Format::JsonSchema(read(path)?)
    } else if let Some(path) = &args.grammar {
        Format::Lark(read(path)?)
    } else if let Some(regex) = &args.regex {
        Format::Regex(regex.clone())
    } else if args.json_object {
        Format::JsonObject(JsonObject {})
    } else {
        return Ok(None);
    };
    Ok(Some(ResponseFormat { format: Some(format) }))
}

/// Prints text as it comes, and a line end after it when a person reads.
async fn relay(answer: &mut Streaming<GenerateResponse>) -> Result<Finish, Failure> {
    let mut ends_line = false;
    while let Some(part) = answer.message().await? {
        if !part.text.is_empty() {
            output::piece(&part.text)?;
            ends_line = part.text.ends_with('\n');
        }
        if let Some(finish) = part.finish {
            if !ends_line {
                output::piece("\n")?;
            }
            return Ok(finish);
        }
    }
    Err(broken())
}

async fn print_whole(answer: &mut Streaming<GenerateResponse>, model: &str) -> Outcome {
    let mut text = String::new();
    let mut tokens: Vec<Token> = Vec::new();
    while let Some(part) = answer.message().await? {
        text.push_str(&part.text);
        tokens.extend(part.tokens);
        if let Some(finish) = part.finish {
            let mut whole = json!({ "model": model, "text": text });
            whole["tokens"] = tokens.iter().map(json::token).collect();
            if let (Some(whole), Some(end)) = (whole.as_object_mut(), json::finish(&finish).as_object()) {
                whole.extend(end.clone());
            }
            return Ok(output::print_json(&whole)?);
        }
    }
    Err(broken())
}

fn report(finish: &Finish) {
    let usage = finish.usage.unwrap_or_default();
    let receipt = finish.receipt.clone().unwrap_or_default();
    let adapter = if receipt.adapter_digest.is_empty() { "none" } else { short_digest(&receipt.adapter_digest) };
    let rule = if std::io::stderr().is_terminal() { "\n" } else { "" };
    eprintln!(
        "{rule}finish: {}, seed {}\nusage: {} prompt tokens ({} from cache), {} completion tokens\n\
         receipt: base {}, adapter {adapter}, worker {}, request {}",
        json::finish_reason(finish.reason()),
        finish.seed,
        usage.prompt_tokens,
        usage.cached_prompt_tokens,
        usage.completion_tokens,
        short_digest(&receipt.base_digest),
        receipt.worker,
        receipt.request_id,
    );
}

fn broken() -> Failure {
    Failure::Failed("the answer broke off without its last message".to_owned())
}
