//! The output of `score`: one JSON object a line, and the perplexity over all of them.

use serde::Serialize;

use crate::{
    failure::{Failure, Outcome},
    output,
};

/// One line's result.
#[derive(Serialize)]
pub struct Scored {
    #[serde(rename = "line")]
    pub number: usize,
    /// Natural logarithm, one for each token after the first.
    pub logprobs: Vec<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_start: Option<usize>,
}

/// Adds up what is printed.
#[derive(Default)]
pub struct Report {
    all: Sum,
    /// Over the completions of lines that have one.
    completions: Option<Sum>,
}

#[derive(Default)]
struct Sum {
    logprobs: f64,
    tokens: u64,
}

impl Sum {
    fn add(&mut self, logprobs: &[f32]) {
        self.logprobs += logprobs.iter().copied().map(f64::from).sum::<f64>();
        self.tokens += logprobs.len() as u64;
    }

    /// exp(-mean); none for no tokens.
    fn perplexity(&self) -> Option<f64> {
        (self.tokens > 0).then(|| (-self.logprobs / self.tokens as f64).exp())
    }
}

#[derive(Serialize)]
struct End {
    perplexity: Option<f64>,
    /// Log-probabilities that the perplexity is over.
    tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    completion_perplexity: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completion_tokens: Option<u64>,
}

impl Report {
    /// Prints one line.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn line(&mut self, line: &Scored) -> Outcome {
        self.all.add(&line.logprobs);
        if let Some(start) = line.completion_start {
            let completion = line.logprobs.get(start..).unwrap_or_default();
            self.completions.get_or_insert_default().add(completion);
        }
        print(line)
    }

    /// Prints the last line.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn end(self) -> Outcome {
        print(&End {
            perplexity: self.all.perplexity(),
            tokens: self.all.tokens,
            completion_perplexity: self.completions.as_ref().and_then(Sum::perplexity),
            completion_tokens: self.completions.map(|sum| sum.tokens),
        })
    }
}

fn print(object: &impl Serialize) -> Outcome {
    let text = serde_json::to_string(object).map_err(|error| Failure::Failed(error.to_string()))?;
    Ok(output::line(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perplexity_is_the_exponential_of_the_mean_loss() {
        let mut sum = Sum::default();
        assert_eq!(sum.perplexity(), None);
        sum.add(&[-1.0, -3.0]);
        assert!(sum.perplexity().is_some_and(|p| (p - 2f64.exp()).abs() < 1e-12));
    }

    #[test]
    fn log_probabilities_are_printed_in_full_f32_precision() {
        let line = Scored { number: 3, logprobs: vec![-0.1, -16.903_208], completion_start: None };
        let text = serde_json::to_string(&line).expect("json");
        assert_eq!(text, "{\"line\":3,\"logprobs\":[-0.1,-16.903208]}");
    }
}
