//! `banyan models`: what the key may use.

use proto::v1::{ListModelsRequest, Model};
use serde_json::json;

use crate::{
    cli::ModelsArgs,
    client,
    failure::{Failure, Outcome},
    output::{self, Table, json, short_digest, time_text},
};

/// # Errors
/// The server's refusal.
pub async fn models(args: ModelsArgs, as_json: bool) -> Outcome {
    let models = all(&args).await?;
    if as_json {
        let models: Vec<_> = models.iter().map(json::model).collect();
        return Ok(output::print_json(&json!({ "models": models }))?);
    }
    let mut table = Table::new(&["MODEL", "VERSION", "CONTEXT", "UPDATED"]);
    for model in &models {
        table.row([
            model.name.clone(),
            short_digest(&model.adapter_digest).to_owned(),
            model.context_length.to_string(),
            time_text(model.update_time.as_ref()),
        ]);
    }
    Ok(table.print()?)
}

async fn all(args: &ModelsArgs) -> Result<Vec<Model>, Failure> {
    let mut client = client::inference(&args.connection).await?;
    let mut models = Vec::new();
    let mut page_token = String::new();
    loop {
        let page = client.list_models(ListModelsRequest { page_size: 0, page_token }).await?.into_inner();
        models.extend(page.models);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(models);
        }
    }
}
