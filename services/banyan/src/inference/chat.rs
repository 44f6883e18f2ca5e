//! `banyan chat`: a conversation, turn by turn. Ctrl-C ends the running answer; at the prompt it leaves.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use domain::ModelName;
use proto::v1::{
    ChatMessage, ChatMessages, GenerateRequest, generate_request::Input,
    inference_service_client::InferenceServiceClient,
};

use super::{message, sampling};
use crate::{
    cli::ChatArgs,
    client::{self, Connection},
    failure::{Failure, Outcome},
    output,
};

/// # Errors
/// When the server cannot be reached at the start; later faults are printed and the conversation goes on.
pub async fn chat(args: ChatArgs, as_json: bool) -> Outcome {
    if as_json {
        return Err(Failure::Usage("`chat` is for people; use `generate --json`".to_owned()));
    }
    let mut client = client::inference(&args.connection).await?;
    let mut model = args.model.clone();
    let mut messages = opening(&args);
    note(&format!("{model}: /quit to leave, /new to forget, /model NAME to go on with another model"));
    loop {
        let Some(line) = read_line().await? else { return Ok(()) };
        match line.trim() {
            "" => {}
            "/quit" | "/exit" => return Ok(()),
            "/new" => messages = opening(&args),
            command if command.starts_with('/') => switch(command, &mut model),
            said => {
                messages.push(message("user", said));
                match turn(&mut client, &args, &model, &messages).await {
                    Ok(answer) => messages.push(message("assistant", answer)),
                    Err(Failure::OutputClosed) => return Err(Failure::OutputClosed),
                    Err(failure) => {
                        // What was not answered is not part of the conversation.
                        messages.pop();
                        eprintln!("error: {failure}");
                    }
                }
            }
        }
    }
}

fn opening(args: &ChatArgs) -> Vec<ChatMessage> {
    args.system.iter().map(|text| message("system", text)).collect()
}

fn switch(command: &str, model: &mut ModelName) {
    let Some(name) = command.strip_prefix("/model").map(str::trim).filter(|name| !name.is_empty()) else {
        note("commands: /model NAME, /new, /quit");
        return;
    };
    match name.parse() {
        Ok(name) => {
            *model = name;
            note(&format!("now {model}"));
        }
        Err(error) => note(&format!("{error}")),
    }
}

/// One answer; cut short by Ctrl-C, which drops the stream and with it the sequence on the worker.
async fn turn(
    client: &mut InferenceServiceClient<Connection>,
    args: &ChatArgs,
    model: &ModelName,
    messages: &[ChatMessage],
) -> Result<String, Failure> {
    let request = GenerateRequest {
        model: model.to_string(),
        input: Some(Input::Chat(ChatMessages { messages: messages.to_vec() })),
        sampling: Some(sampling(&args.sampling)),
        max_tokens: args.sampling.max_tokens.unwrap_or(0),
        stop: args.sampling.stop.clone(),
        ..GenerateRequest::default()
    };
    let mut stream = client.generate(request).await?.into_inner();
    let mut answer = String::new();
    loop {
        let part = tokio::select! {
            part = stream.message() => part?,
            _ = tokio::signal::ctrl_c() => None,
        };
        let Some(part) = part else { break };
        output::piece(&part.text)?;
        answer.push_str(&part.text);
        if part.finish.is_some() {
            break;
        }
    }
    output::piece("\n")?;
    Ok(answer)
}

/// `None` at the end of the input, or on Ctrl-C.
async fn read_line() -> Result<Option<String>, Failure> {
    let reading = tokio::task::spawn_blocking(|| {
        if io::stdin().is_terminal() {
            eprint!("> ");
            io::stderr().flush()?;
        }
        let mut line = String::new();
        let length = io::stdin().lock().read_line(&mut line)?;
        Ok::<_, io::Error>((length > 0).then_some(line))
    });
    tokio::select! {
        line = reading => Ok(line.map_err(|error| Failure::Failed(error.to_string()))??),
        // The reading thread cannot be woken; the process is about to end.
        _ = tokio::signal::ctrl_c() => std::process::exit(130),
    }
}

fn note(text: &str) {
    if io::stdin().is_terminal() {
        eprintln!("[{text}]");
    }
}
