//! What a dataset *is*: a customer's file brought into one canonical form, every row accounted for, and the immutable
//! version that the accepted rows make.
//!
//! The path is one function, [`check()`]: a file and a base model's template and tokenizer go in, a [`Report`] comes out in
//! which accepted and refused rows add up to all rows, and the rows of a version go to a [`Sink`]. Which finding refuses
//! a row and which only warns is one table, [`Code`]. This crate trains nothing, serves nothing, and links no model: what
//! it needs of one is the trait [`Text`].

mod book;
mod check;
mod code;
mod encode;
mod finding;
mod held_out;
mod limits;
mod loss_mask;
mod mapping;
mod options;
mod prepare;
pub mod privacy;
mod report;
mod row;
mod samples;
mod shape;
mod similar;
mod source;
mod split;
mod text;
mod version;

pub use check::{CheckError, Input, Sink, check};
pub use code::{Code, Severity};
pub use encode::{Encoded, Rendered, encode};
pub use finding::{FileName, Finding, Problem};
pub use limits::Limits;
pub use loss_mask::LossMask;
pub use mapping::{Mapping, MappingError};
pub use options::{Options, SplitOptions};
pub use report::{Accepted, FileReport, Outcome, Part, Report, Sample};
pub use row::{Content, Role, Row, Side, Turn};
pub use shape::{DETECT_ROWS, DetectError, ShapeName, Shaped, detect, shape};
pub use source::{Fields, Format, Record, Source, SourceError};
pub use split::side;
pub use text::{Text, Token, fingerprint};
pub use version::{Draft, FORMAT, Manifest, SideCounts, Version, VersionError};
