//! Writing a safetensors file of f32 tensors: names in order, data one after the other, no holes.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value, json};

/// A tensor to be written, row-major.
pub struct NewTensor<'a> {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: std::borrow::Cow<'a, [f32]>,
}

/// The file of `tensors` in the order of their names, with `metadata` as its free text.
///
/// # Panics
/// If a shape does not have as many elements as there are values, or two tensors have one name.
pub fn write(mut tensors: Vec<NewTensor<'_>>, metadata: &BTreeMap<String, String>) -> Bytes {
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".to_owned(), json!(metadata));
    }
    let mut end = 0;
    for tensor in &tensors {
        let NewTensor { name, shape, values } = tensor;
        assert_eq!(shape.iter().product::<usize>(), values.len(), "values of {name}");
        let begin = end;
        end += 4 * values.len();
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, end]});
        let twin = header.insert(name.clone(), entry);
        assert!(twin.is_none(), "two tensors are called {name}");
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    // Data begins aligned, as the reference writes it.
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = Vec::with_capacity(8 + header.len() + end);
    file.extend((header.len() as u64).to_le_bytes());
    file.extend(header);
    for tensor in &tensors {
        file.extend(tensor.values.iter().flat_map(|value| value.to_le_bytes()));
    }
    file.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Container, Limits};

    #[test]
    fn what_is_written_is_read_again() {
        let tensor = |name: &str, shape: &[usize], first: f32| {
            let values = (0..shape.iter().product()).map(|i| first + i as f32).collect();
            NewTensor { name: name.to_owned(), shape: shape.to_vec(), values }
        };
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        let file = write(vec![tensor("b", &[2, 3], 0.5), tensor("a \"quoted\"", &[4], -1.0)], &metadata);
        let container = Container::parse(file, &Limits::default()).expect("a container");
        assert_eq!(container.names().collect::<Vec<_>>(), ["a \"quoted\"", "b"]);
        assert_eq!(container.header().metadata(), &metadata);
        let b = container.get("b").expect("b");
        assert_eq!((b.shape, b.to_f32()), (&[2, 3][..], Some(vec![0.5, 1.5, 2.5, 3.5, 4.5, 5.5])));
    }
}
