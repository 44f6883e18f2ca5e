//! What is wrong with the lines of a file.

/// Faults shown at once; more are counted.
const SHOWN_MAX: usize = 20;

/// All faults of a file, each with its line's number, from 1.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", text(.0))]
pub struct LineFaults(pub Vec<(usize, String)>);

fn text(faults: &[(usize, String)]) -> String {
    let mut lines: Vec<_> =
        faults.iter().take(SHOWN_MAX).map(|(number, fault)| format!("line {number}: {fault}")).collect();
    if faults.len() > SHOWN_MAX {
        lines.push(format!("… and {} more", faults.len() - SHOWN_MAX));
    }
    lines.join("\n")
}
