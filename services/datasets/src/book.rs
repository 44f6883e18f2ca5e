//! The book of a check: every row is entered once, in the order of the file, and leaves accepted or refused. What
//! concerns several rows is decided here: duplicates, contradictions, leaks, the balance of labels.

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest as _, Sha256};

use crate::{
    code::Code,
    finding::{FileName, Finding, Problem, clip},
    held_out::HeldOut,
    limits::Limits,
    options::Options,
    prepare::{Prepared, Ready},
    privacy::Kind,
    report::{Accepted, FileReport, Outcome},
    row::{Row, Side},
    samples::Samples,
    similar::Compared,
    split,
    version::SideCounts,
};

/// A label with fewer rows than a tenth of the commonest one's is rare.
const IMBALANCE: u64 = 10;

/// Where something was first seen.
struct First {
    file: FileName,
    line: u64,
}

/// What an earlier row asked and what it answered.
struct Asked {
    first: First,
    answer: u128,
    side: Side,
}

pub(crate) struct Book<'a> {
    options: &'a Options,
    limits: &'a Limits,
    contents: HashMap<u128, First>,
    questions: HashMap<u128, Asked>,
    compared: Compared,
    pub held_out: HeldOut,
    pub samples: Samples,
    pub file: FileReport,
    pub files: Vec<FileReport>,
    pub sides: BTreeMap<Side, SideCounts>,
    pub labels: BTreeMap<String, u64>,
    pub codes: BTreeMap<Code, u64>,
    pub personal: BTreeMap<Kind, u64>,
    pub findings: Vec<Finding>,
    pub findings_left_out: u64,
    pub ignored_fields: BTreeMap<String, u64>,
    pub tokens_longest: u64,
    pub not_compared: u64,
    pub rows: Sha256,
    pub rows_bytes: u64,
}

impl<'a> Book<'a> {
    pub(crate) fn new(options: &'a Options, limits: &'a Limits) -> Self {
        Book {
            options,
            limits,
            contents: HashMap::new(),
            questions: HashMap::new(),
            compared: Compared::new(limits.compared_rows_max),
            held_out: HeldOut::new(limits.held_out_runs_max),
            samples: Samples::default(),
            file: FileReport::default(),
            files: Vec::new(),
            sides: BTreeMap::new(),
            labels: BTreeMap::new(),
            codes: BTreeMap::new(),
            personal: BTreeMap::new(),
            findings: Vec::new(),
            findings_left_out: 0,
            ignored_fields: BTreeMap::new(),
            tokens_longest: 0,
            not_compared: 0,
            rows: Sha256::new(),
            rows_bytes: 0,
        }
    }

    pub(crate) fn limits(&self) -> &'a Limits {
        self.limits
    }

    pub(crate) fn begin(&mut self, file: FileName) {
        self.file = FileReport { file, ..FileReport::default() };
    }

    /// After the last row of a file.
    pub(crate) fn end(&mut self, bytes: u64) {
        self.file.bytes = bytes;
        if self.file.file == FileName::HeldOut {
            self.held_out.complete();
        }
        self.files.push(self.file.clone());
    }

    /// Enters a row. An accepted one also comes back in its canonical spelling.
    pub(crate) fn enter(&mut self, prepared: Prepared) -> (Outcome, Option<String>) {
        let Prepared { line, row, mut warnings, ignored } = prepared;
        self.file.rows += 1;
        for name in ignored {
            if self.ignored_fields.len() < self.limits.ignored_fields_max || self.ignored_fields.contains_key(&name) {
                *self.ignored_fields.entry(name).or_default() += 1;
            }
        }
        let judged = row.and_then(|ready| self.judge(line, ready, &mut warnings));
        let (accepted, row) = match judged {
            Ok((accepted, row)) => (Some(accepted), Some(row)),
            Err(problem) => {
                warnings.push(problem);
                (None, None)
            }
        };
        match accepted {
            Some(_) => self.file.accepted += 1,
            None => self.file.refused += 1,
        }
        let file = self.file.file;
        let findings: Vec<_> = warnings.into_iter().map(|problem| problem.at(file, line)).collect();
        findings.iter().for_each(|finding| self.note(finding));
        (Outcome { file, line, accepted, findings }, row)
    }

    /// Counts a finding, and keeps it while there is room.
    fn note(&mut self, finding: &Finding) {
        *self.codes.entry(finding.code).or_default() += 1;
        for span in &finding.spans {
            *self.personal.entry(span.kind).or_default() += 1;
        }
        if self.findings.len() < self.limits.findings_max {
            self.findings.push(finding.clone());
        } else {
            self.findings_left_out += 1;
        }
    }

    fn judge(&mut self, line: u64, ready: Ready, warnings: &mut Vec<Problem>) -> Result<(Accepted, String), Problem> {
        let file = self.file.file;
        let side = match file {
            FileName::HeldOut => Side::HeldOut,
            FileName::Rows => split::side(ready.group.as_deref().unwrap_or(&ready.question), &self.options.split),
        };
        self.check_leak(&ready)?;
        if let Some(first) = self.contents.get(&ready.content_key) {
            return Err(Problem::new(Code::Duplicate, format!("is the same as {}", place(first))));
        }
        self.check_question(&ready, side, warnings)?;
        self.check_label_room(&ready)?;
        self.compare(line, &ready, side, warnings);
        // Nothing refuses the row any more: what follows may change the book.
        self.contents.insert(ready.content_key, First { file, line });
        let asked = Asked { first: First { file, line }, answer: ready.answer_key, side };
        self.questions.entry(ready.question_key).or_insert(asked);
        if file == FileName::HeldOut {
            self.held_out.add(line, ready.question_key, &ready.question_runs);
        }
        self.accept(line, ready, side)
    }

    /// The same question in the held-out file, or most of it.
    fn check_leak(&self, ready: &Ready) -> Result<(), Problem> {
        if self.file.file == FileName::HeldOut {
            return Ok(());
        }
        match self.held_out.find(ready.question_key, &ready.question_runs) {
            Some(leak) if leak.percent == 100 => {
                Err(Problem::new(Code::Leak, format!("asks what line {} of the held-out file asks", leak.line)))
            }
            Some(leak) => {
                let what = format!("has {} % of the wording of line {} of the held-out file", leak.percent, leak.line);
                Err(Problem::new(Code::Leak, what))
            }
            None => Ok(()),
        }
    }

    fn check_question(&self, ready: &Ready, side: Side, warnings: &mut Vec<Problem>) -> Result<(), Problem> {
        let Some(asked) = self.questions.get(&ready.question_key) else { return Ok(()) };
        if asked.side != side {
            let what = format!("asks what {} asks, which is on the side {}", place(&asked.first), asked.side.as_str());
            return Err(Problem::new(Code::Leak, what));
        }
        if asked.answer != ready.answer_key {
            let what = format!("answers the question of {} otherwise", place(&asked.first));
            warnings.push(Problem::new(Code::Conflict, what));
        }
        Ok(())
    }

    fn check_label_room(&self, ready: &Ready) -> Result<(), Problem> {
        match &ready.label {
            Some(label) if self.labels.len() >= self.limits.labels_max && !self.labels.contains_key(label) => {
                let max = self.limits.labels_max;
                Err(Problem::new(Code::Label, format!("would be the label after {max} others: {:?}", clip(label, 40))))
            }
            _ => Ok(()),
        }
    }

    fn compare(&mut self, line: u64, ready: &Ready, side: Side, warnings: &mut Vec<Problem>) {
        if let Some((other, other_side)) = self.compared.like(&ready.sketch) {
            let (code, what) = if other_side == side {
                (Code::NearDuplicate, format!("is nearly the same as line {other}"))
            } else {
                (
                    Code::NearLeak,
                    format!("is nearly the same as line {other}, which is on the side {}", other_side.as_str()),
                )
            };
            warnings.push(Problem::new(code, what));
        }
        if self.compared.is_full() {
            self.not_compared += 1;
        }
        self.compared.add(line, side, &ready.sketch);
    }

    fn accept(&mut self, line: u64, ready: Ready, side: Side) -> Result<(Accepted, String), Problem> {
        let Ready { tokens, trained_tokens, label, group, content, content_key, .. } = ready;
        let accepted = Accepted { side, tokens, trained_tokens };
        let row = Row { side, group, label, content };
        let spelled = serde_json::to_string(&row).map_err(|error| Problem::new(Code::Json, error.to_string()))?;
        self.rows.update(spelled.as_bytes());
        self.rows.update(b"\n");
        self.rows_bytes += spelled.len() as u64 + 1;
        let counts = self.sides.entry(side).or_default();
        counts.rows += 1;
        counts.tokens += tokens;
        counts.trained_tokens += trained_tokens;
        self.tokens_longest = self.tokens_longest.max(tokens);
        if let Some(label) = &row.label {
            *self.labels.entry(label.clone()).or_default() += 1;
        }
        self.samples.offer(content_key, self.file.file, line, accepted, row.content);
        Ok((accepted, spelled))
    }

    /// Looks at the labels of all rows.
    pub(crate) fn weigh_labels(&mut self) {
        let known = self.options.labels.iter().flatten();
        let most = self.labels.values().copied().max().unwrap_or(0);
        if most == 0 {
            return;
        }
        let mut rare: Vec<(String, u64)> =
            known.filter(|label| !self.labels.contains_key(*label)).map(|label| (label.clone(), 0)).collect();
        let few = self.labels.iter().filter(|(_, rows)| **rows * IMBALANCE < most);
        rare.extend(few.map(|(label, rows)| (label.clone(), *rows)));
        for (label, rows) in rare {
            let what = format!("the label {:?} has {rows} rows, the commonest one {most}", clip(&label, 40));
            let finding = Problem::new(Code::LabelImbalance, what).at(FileName::Rows, 0);
            self.note(&finding);
        }
    }
}

fn place(first: &First) -> String {
    match first.file {
        FileName::Rows => format!("line {}", first.line),
        FileName::HeldOut => format!("line {} of the held-out file", first.line),
    }
}
