//! `banyan usage` and `banyan invoice`.

use prost_types::Timestamp;
use proto::v1::{GetInvoiceRequest, Invoice, InvoiceLine, SummarizeUsageRequest, UsageGroup, UsageGroupBy};
use serde_json::{Value, json};

use crate::{
    cli::{GroupByArg, InvoiceArgs, InvoiceFormatArg, UsageArgs},
    client::Admin,
    failure::Outcome,
    output::{self, Table, json, last_segment, time_text},
};

/// # Errors
/// The server's refusal.
pub async fn usage(args: UsageArgs, as_json: bool) -> Outcome {
    let admin = Admin::open(&args.connection).await?;
    let by = args.by.iter().map(|by| match by {
        GroupByArg::Day => UsageGroupBy::Day,
        GroupByArg::Month => UsageGroupBy::Month,
        GroupByArg::Model => UsageGroupBy::Model,
        GroupByArg::Key => UsageGroupBy::ApiKey,
    });
    let time = |at: time::OffsetDateTime| Timestamp { seconds: at.unix_timestamp(), nanos: 0 };
    let request = SummarizeUsageRequest {
        parent: domain::TenantName { tenant: args.tenant }.to_string(),
        start_time: args.from.map(time),
        end_time: args.to.map(time),
        group_by: by.map(i32::from).collect(),
    };
    let groups = admin.ledger().summarize_usage(request).await?.into_inner().groups;
    if as_json {
        let groups: Vec<_> = groups.iter().map(group).collect();
        return Ok(output::print_json(&json!({ "groups": groups }))?);
    }
    let head = ["PERIOD", "MODEL", "KEY", "REQUESTS", "PROMPT", "CACHED", "COMPLETION", "MICROS"];
    let mut table = Table::new(&head);
    for group in &groups {
        table.row([
            time_text(group.period.as_ref()).split('T').next().unwrap_or_default().to_owned(),
            group.model.clone(),
            group.api_key_id.clone(),
            group.requests.to_string(),
            group.prompt_tokens.to_string(),
            group.cached_prompt_tokens.to_string(),
            group.completion_tokens.to_string(),
            group.amount_micros.to_string(),
        ]);
    }
    Ok(table.print()?)
}

fn group(group: &UsageGroup) -> Value {
    json!({
        "period": json::moment(group.period.as_ref()),
        "model": group.model,
        "api_key_id": group.api_key_id,
        "requests": group.requests,
        "prompt_tokens": group.prompt_tokens,
        "cached_prompt_tokens": group.cached_prompt_tokens,
        "completion_tokens": group.completion_tokens,
        "amount_micros": group.amount_micros,
    })
}

/// # Errors
/// The server's refusal.
pub async fn invoice(args: InvoiceArgs, as_json: bool) -> Outcome {
    let admin = Admin::open(&args.connection).await?;
    let parent = domain::TenantName { tenant: args.tenant }.to_string();
    let request = GetInvoiceRequest { parent, month: args.month };
    let invoice = admin.ledger().get_invoice(request).await?.into_inner();
    match args.format {
        InvoiceFormatArg::Csv => Ok(output::line(&csv(&invoice))?),
        InvoiceFormatArg::Json => Ok(output::print_json(&wire(&invoice))?),
        InvoiceFormatArg::Table if as_json => Ok(output::print_json(&wire(&invoice))?),
        InvoiceFormatArg::Table => {
            let mut table = Table::new(&["MODEL", "REQUESTS", "INPUT", "CACHED INPUT", "OUTPUT", "MICROS"]);
            for line in &invoice.lines {
                table.row([
                    line.model.clone(),
                    line.requests.to_string(),
                    line.input_tokens.to_string(),
                    line.cached_input_tokens.to_string(),
                    line.output_tokens.to_string(),
                    line.amount_micros.to_string(),
                ]);
            }
            let total = invoice.total_micros.to_string();
            table.row(["total".into(), String::new(), String::new(), String::new(), String::new(), total]);
            Ok(table.print()?)
        }
    }
}

const COLUMNS: [&str; 11] = [
    "tenant",
    "month",
    "model",
    "requests",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "input_micros_per_million",
    "cached_input_micros_per_million",
    "output_micros_per_million",
    "amount_micros",
];

/// RFC 4180, without a line end behind the last line. No value needs quotes: names are slugs, the rest are numbers.
fn csv(invoice: &Invoice) -> String {
    let tenant = last_segment(&invoice.parent);
    let lines = invoice.lines.iter().map(|line| {
        let InvoiceLine { model, requests, input_tokens, cached_input_tokens, output_tokens, .. } = line;
        let tokens = format!("{requests},{input_tokens},{cached_input_tokens},{output_tokens}");
        let price = format!("{},{},{}", line.input_micros, line.cached_input_micros, line.output_micros);
        format!("{tenant},{},{model},{tokens},{price},{}", invoice.month, line.amount_micros)
    });
    let total = format!("{tenant},{},total,,,,,,,,{}", invoice.month, invoice.total_micros);
    let all: Vec<_> = [COLUMNS.join(",")].into_iter().chain(lines).chain([total]).collect();
    all.join("\r\n")
}

fn wire(invoice: &Invoice) -> Value {
    let line = |line: &InvoiceLine| {
        json!({
            "model": line.model,
            "requests": line.requests,
            "input_tokens": line.input_tokens,
            "cached_input_tokens": line.cached_input_tokens,
            "output_tokens": line.output_tokens,
            "input_micros": line.input_micros,
            "cached_input_micros": line.cached_input_micros,
            "output_micros": line.output_micros,
            "amount_micros": line.amount_micros,
        })
    };
    json!({
        "parent": invoice.parent,
        "month": invoice.month,
        "lines": invoice.lines.iter().map(line).collect::<Vec<_>>(),
        "total_micros": invoice.total_micros,
        "open_micros": invoice.open_micros,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invoice_is_a_table_that_any_program_reads() {
        let line =
            InvoiceLine { model: "base".into(), requests: 2, input_tokens: 3, amount_micros: 9, ..Default::default() };
        let invoice = Invoice {
            parent: "tenants/acme".into(),
            month: "2026-11".into(),
            lines: vec![line],
            total_micros: 9,
            open_micros: 0,
        };
        let text = csv(&invoice);
        let rows: Vec<Vec<_>> = text.split("\r\n").map(|row| row.split(',').collect()).collect();
        assert!(rows.iter().all(|row| row.len() == COLUMNS.len()), "{text}");
        assert_eq!(rows[1], ["acme", "2026-11", "base", "2", "3", "0", "0", "0", "0", "0", "9"]);
        assert_eq!((rows[2][2], rows[2][10]), ("total", "9"));
    }
}
