//! The table of a run, for people or as JSON.

use serde::Serialize;
use serde_json::json;

use super::verdict::Verdict;

/// All lanes of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    pub lanes: Vec<Verdict>,
}

impl Report {
    /// Whether every invariant held in every lane.
    pub fn holds(&self) -> bool {
        self.lanes.iter().all(|lane| lane.broken.is_empty())
    }

    pub fn to_json(&self) -> String {
        json!({ "kills": self.kills(), "holds": self.holds(), "lanes": self.lanes }).to_string()
    }

    /// One line for each lane, then what does not hold and why clients were refused.
    pub fn to_text(&self) -> String {
        let mut rows = vec![HEAD.map(str::to_owned)];
        rows.extend(self.lanes.iter().map(cells));
        let widths: Vec<_> =
            (0..HEAD.len()).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
        let mut text = String::new();
        for row in rows {
            let padded: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            text += padded.join("  ").trim_end();
            text.push('\n');
        }
        for lane in &self.lanes {
            for (what, counts) in [("refused", &lane.refused), ("failed", &lane.failed)] {
                let counts: Vec<_> = counts.iter().map(|(reason, count)| format!("{count} × {reason}")).collect();
                if !counts.is_empty() {
                    text += &format!("{}: {what}: {}\n", lane.lane, counts.join(", "));
                }
            }
        }
        for lane in &self.lanes {
            if let Some(why) = &lane.skipped {
                text += &format!("{}: not run, this machine does not permit it: {why}\n", lane.lane);
            }
            for broken in &lane.broken {
                text += &format!("BROKEN {}: {broken}\n", lane.lane);
            }
        }
        let verdict = if self.holds() { "every invariant held" } else { "an invariant is broken" };
        text + &format!("{} kills; {verdict}", self.kills())
    }

    fn kills(&self) -> usize {
        self.lanes.iter().map(|lane| lane.kills).sum()
    }
}

const HEAD: [&str; 17] = [
    "LANE",
    "FAULTS",
    "REQUESTS",
    "FINISHED",
    "BY LIMIT",
    "REFUSED",
    "GATEWAY GONE",
    "FAILED",
    "ROWS LOST",
    "ROWS TWICE",
    "UNMATCHED",
    "TOKENS OVER",
    "MONEY OVER",
    "COUNTERS",
    "LEASES LEFT",
    "STREAMS LOST",
    "TEXT DIFFERS",
];

fn cells(lane: &Verdict) -> [String; 17] {
    let refusal = lane.median_refusal_ms.zip(lane.slowest_refusal_ms);
    let refusal = refusal.map(|(half, all)| format!(" (half ≤ {half} ms, all ≤ {all} ms)")).unwrap_or_default();
    [
        lane.lane.clone(),
        lane.faults.to_string(),
        lane.requests.to_string(),
        lane.finished.to_string(),
        lane.ended_by_limit.to_string(),
        lane.refused.values().sum::<usize>().to_string() + &refusal,
        lane.with_their_gateway.to_string(),
        lane.failed.values().sum::<usize>().to_string(),
        lane.rows_lost.to_string(),
        lane.rows_duplicated.to_string(),
        lane.rows_unmatched.to_string(),
        lane.tokens_over.to_string(),
        lane.money_over.to_string(),
        if lane.budgets_differing.is_some() { "DIFFER" } else { "even" }.to_owned(),
        lane.reservations_left.to_string(),
        lane.streams_lost.to_string(),
        lane.texts_differing.to_string(),
    ]
}
