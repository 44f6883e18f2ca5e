//! Updates by mask (AIP-134): which fields of a resource an update changes, and from which state of it on.

use domain::Fault;
use prost_types::FieldMask;

use crate::parse::Violations;

const PATH_CHARS_SHOWN: usize = 64;

/// A field that may be changed: its path, and how its value goes from one to the other.
pub struct Field<F: 'static> {
    pub path: &'static str,
    pub copy: fn(&mut F, &F),
}

/// Fields by their places: `fields![display_name, limits.adapters_max, expires_at => "expire_time"]`. The path is the
/// place, unless it is given.
macro_rules! fields {
    (@path $($part:ident).+ => $path:literal) => { $path };
    (@path $($part:ident).+) => { stringify!($($part).+) };
    ($($($part:ident).+ $(=> $path:literal)?),+ $(,)?) => {
        &[$(crate::admin::mask::Field {
            path: crate::admin::mask::fields!(@path $($part).+ $(=> $path)?),
            copy: |to, from| Clone::clone_from(&mut to.$($part).+, &from.$($part).+),
        }),+]
    };
}
pub(super) use fields;

/// An update that has been read: of what, and what changes.
pub struct Update<N, F: 'static> {
    pub name: N,
    etag: String,
    from: F,
    changes: Vec<&'static Field<F>>,
}

impl<N, F> Update<N, F> {
    /// The state that the caller has seen; none of them means whatever is there.
    pub fn etag(&self) -> Option<&str> {
        (!self.etag.is_empty()).then_some(&self.etag)
    }

    pub fn apply(&self, to: &mut F) {
        self.changes.iter().for_each(|field| (field.copy)(to, &self.from));
    }
}

/// For resources of which a field that is not set means something: then no mask is none.
pub fn require(violations: &mut Violations, mask: Option<&FieldMask>) {
    let names = mask.is_some_and(|mask| !mask.paths.is_empty());
    violations.require("update_mask", names, "must name what is to change");
}

/// What is to change in `name` to what `from` has. Everything that was found wrong before is told as well.
pub fn update<N, F: Default + PartialEq>(
    mut violations: Violations,
    (name, etag): (Option<N>, String),
    mask: Option<FieldMask>,
    fields: &'static [Field<F>],
    from: F,
) -> Result<Update<N, F>, Fault> {
    let changes = read(&mut violations, &mask.unwrap_or_default().paths, fields, &from);
    let name = violations.check(name)?;
    Ok(Update { name, etag, from, changes })
}

/// The fields that the paths mean: each one itself or what lies beneath it, `*` all. No path means those that have
/// another value in `from` than by default.
fn read<F: Default + PartialEq>(
    violations: &mut Violations,
    paths: &[String],
    fields: &'static [Field<F>],
    from: &F,
) -> Vec<&'static Field<F>> {
    if paths.is_empty() {
        return fields.iter().filter(|field| is_set(field, from)).collect();
    }
    let mut meant = Vec::new();
    for path in paths {
        let means = |field: &&Field<F>| {
            path == "*"
                || field.path.strip_prefix(path.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let before = meant.len();
        meant.extend(fields.iter().filter(means));
        if meant.len() == before {
            let shown: String = path.chars().take(PATH_CHARS_SHOWN).collect();
            violations.add("update_mask", format!("`{shown}` is not a field that can be changed"));
        }
    }
    meant
}

fn is_set<F: Default + PartialEq>(field: &Field<F>, from: &F) -> bool {
    let mut changed = F::default();
    (field.copy)(&mut changed, from);
    changed != F::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default, Debug, PartialEq)]
    struct Outer {
        name: String,
        inner: Inner,
    }

    #[derive(Clone, Default, Debug, PartialEq)]
    struct Inner {
        one: u32,
        two: u32,
    }

    const FIELDS: &[Field<Outer>] = fields![name, inner.one, inner.two];

    fn apply(paths: &[&str]) -> Option<Outer> {
        let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
        let from = Outer { name: "new".to_owned(), inner: Inner { one: 9, two: 0 } };
        let mut to = Outer { name: "old".to_owned(), inner: Inner { one: 1, two: 5 } };
        let mut violations = Violations::default();
        read(&mut violations, &paths, FIELDS, &from).iter().for_each(|field| (field.copy)(&mut to, &from));
        violations.check(Some(to)).ok()
    }

    #[test]
    fn a_mask_says_what_changes_and_no_mask_means_what_is_set() {
        let outer = |name: &str, one, two| Some(Outer { name: name.to_owned(), inner: Inner { one, two } });
        assert_eq!(apply(&[]), outer("new", 9, 5));
        assert_eq!(apply(&["name"]), outer("new", 1, 5));
        assert_eq!(apply(&["inner"]), outer("old", 9, 0));
        assert_eq!(apply(&["inner.two"]), outer("old", 1, 0));
        assert_eq!(apply(&["*"]), outer("new", 9, 0));
        assert_eq!(apply(&["inn"]), None);
        assert_eq!(apply(&["inner.three"]), None);
    }
}
