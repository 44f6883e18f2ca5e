//! JSON Lines, CSV and Parquet as rows.

use std::{fs::File, io::Cursor, path::Path, sync::Arc};

use datasets::{Code, Format, Limits, Source, SourceError};
use parquet::{
    basic::Compression,
    data_type::{ByteArray, ByteArrayType, Int64Type},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use serde_json::{Value, json};

use crate::support::source;

/// Lines, and what is in them or what is wrong with them.
fn read(text: impl Into<Vec<u8>>, format: Format) -> Vec<(u64, Result<Value, Code>)> {
    all(source(text, format))
}

fn all(source: Source) -> Vec<(u64, Result<Value, Code>)> {
    let record = |record: Result<datasets::Record, SourceError>| {
        let record = record.expect("readable");
        (record.line, record.fields.map(Value::Object).map_err(|problem| problem.code))
    };
    source.map(record).collect()
}

#[test]
fn json_lines_are_numbered_as_an_editor_numbers_them() {
    let found = read("{\"a\": 1}\r\n\n  \n{\"a\": 2}", Format::Jsonl);
    assert_eq!(found, [(1, Ok(json!({ "a": 1 }))), (4, Ok(json!({ "a": 2 })))]);
}

#[test]
fn a_line_that_is_no_object_in_utf8_says_why_and_the_next_is_read() {
    let mut bytes = b"\xef\xbb\xbf{\"a\": 1}\n{\"a\": \"\xff\"}\n{\"a\": \"\\u0000\"}\n".to_vec();
    bytes.extend(b"{\"a\": \"\0\"}\n7\n{\"a\": }\n{\"a\": \"\\ud800\"}\n{\"a\": 1}\n");
    let codes: Vec<_> = read(bytes, Format::Jsonl).into_iter().map(|(line, row)| (line, row.err())).collect();
    let (encoding, json) = (Some(Code::Encoding), Some(Code::Json));
    assert_eq!(
        codes,
        [(1, encoding), (2, encoding), (3, encoding), (4, encoding), (5, json), (6, json), (7, json), (8, None)]
    );
}

#[test]
fn a_json_array_is_told_how_to_become_lines() {
    let array = Source::read(Cursor::new(" [\n{}]"), Format::Jsonl, &Limits::default());
    assert!(matches!(array, Err(SourceError::JsonArray)));
}

#[test]
fn csv_records_begin_where_an_editor_shows_them() {
    let text = "\u{feff}q,a\n1,\"x\ny\"\n\n2,\"z \"\"w\"\", v\"\r\n3\n4,5,6\n7,8";
    let found = read(text, Format::Csv);
    let row = |q: &str, a: &str| Ok(json!({ "q": q, "a": a }));
    let expected = [
        (2, row("1", "x\ny")),
        (5, row("2", "z \"w\", v")),
        (6, Err(Code::Csv)),
        (7, Err(Code::Csv)),
        (8, row("7", "8")),
    ];
    assert_eq!(found, expected);
    assert_eq!(read("q\ta\n1\t2,3\n", Format::Tsv), [(2, Ok(json!({ "q": "1", "a": "2,3" })))]);
    let broken = read(b"q\n\xff\n\"\0\"\nok\n".to_vec(), Format::Csv);
    assert_eq!(broken, [(2, Err(Code::Encoding)), (3, Err(Code::Encoding)), (4, Ok(json!({ "q": "ok" })))]);
}

#[test]
fn a_header_that_names_no_columns_is_refused() {
    for (text, part) in [("", "empty"), ("a,a\n", "twice"), ("a,,b\n", "empty")] {
        let header = Source::read(Cursor::new(text), Format::Csv, &Limits::default());
        assert!(matches!(&header, Err(SourceError::Header(what)) if what.contains(part)), "{text:?}");
    }
}

fn write_parquet(path: &Path, compression: Compression) {
    let schema = "message rows {
        required binary prompt (STRING);
        optional binary completion (STRING);
        required int64 id;
        optional group messages (LIST) { repeated group list { optional group element {
            required binary role (STRING);
            required binary content (STRING);
        } } }
    }";
    let schema = Arc::new(parse_message_type(schema).expect("a schema"));
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let mut file =
        SerializedFileWriter::new(File::create(path).expect("a file"), schema, properties).expect("a writer");
    let mut group = file.next_row_group().expect("a row group");
    let texts = |texts: &[&str]| texts.iter().map(|text| ByteArray::from(*text)).collect::<Vec<_>>();
    let mut bytes = |values: &[&str], definitions: Option<&[i16]>, repetitions: Option<&[i16]>| {
        let mut column = group.next_column().expect("readable").expect("a column");
        column.typed::<ByteArrayType>().write_batch(&texts(values), definitions, repetitions).expect("written");
        column.close().expect("closed");
    };
    bytes(&["one?", "two?"], None, None);
    bytes(&["One."], Some(&[1, 0]), None);
    let mut column = group.next_column().expect("readable").expect("a column");
    column.typed::<Int64Type>().write_batch(&[7, 8], None, None).expect("written");
    column.close().expect("closed");
    let mut bytes = |values: &[&str]| {
        let mut column = group.next_column().expect("readable").expect("a column");
        let levels = (Some(&[3_i16, 3, 0][..]), Some(&[0_i16, 1, 0][..]));
        column.typed::<ByteArrayType>().write_batch(&texts(values), levels.0, levels.1).expect("written");
        column.close().expect("closed");
    };
    bytes(&["user", "assistant"]);
    bytes(&["one?", "One."]);
    group.close().expect("closed");
    file.close().expect("closed");
}

#[test]
fn parquet_rows_come_with_their_numbers_lists_and_structs() {
    let folder = tempfile::tempdir().expect("folder");
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::ZSTD(Default::default()),
        Compression::GZIP(Default::default()),
    ] {
        let path = folder.path().join("rows.parquet");
        write_parquet(&path, compression);
        let found = all(Source::open(&path, &Limits::default()).expect("opened"));
        let messages = json!([{ "role": "user", "content": "one?" }, { "role": "assistant", "content": "One." }]);
        let expected = [
            (1, Ok(json!({ "prompt": "one?", "completion": "One.", "id": 7, "messages": messages }))),
            (2, Ok(json!({ "prompt": "two?", "completion": null, "id": 8, "messages": null }))),
        ];
        assert_eq!(found, expected, "{compression:?}");
    }
}

#[test]
fn a_file_that_is_no_parquet_is_refused_as_a_whole() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("rows.parquet");
    std::fs::write(&path, "PAR1 this is none PAR1").expect("written");
    assert!(matches!(Source::open(&path, &Limits::default()), Err(SourceError::Parquet(_))));
    let unknown = Source::open(&folder.path().join("rows.xlsx"), &Limits::default());
    assert!(matches!(unknown, Err(SourceError::UnknownFormat)));
}
