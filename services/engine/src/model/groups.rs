//! Which rows of a step belong to which adapter. A step without adapters has no groups and pays nothing.

use super::{Adapter, SequenceSlice};

/// The rows of a step that use an adapter, by adapter; base rows are in no group.
pub(crate) struct Groups<'a> {
    groups: Vec<Group<'a>>,
}

pub(crate) struct Group<'a> {
    pub adapter: &'a Adapter,
    /// Ascending.
    pub rows: Vec<usize>,
}

impl<'a> Groups<'a> {
    pub fn of(sequences: &[SequenceSlice<'a>]) -> Self {
        let mut groups = Groups { groups: Vec::new() };
        for sequence in sequences {
            if let Some(adapter) = sequence.adapter {
                groups.rows_of(adapter).extend(sequence.rows.clone());
            }
        }
        for group in &mut groups.groups {
            group.rows.sort_unstable();
        }
        groups
    }

    /// The same grouping of `rows` (ascending), which are renumbered from 0.
    pub fn select(&self, rows: &[usize]) -> Groups<'a> {
        let among = |group: &Group<'a>| {
            let place = |(place, row): (usize, &usize)| group.rows.binary_search(row).ok().map(|_| place);
            let rows: Vec<usize> = rows.iter().enumerate().filter_map(place).collect();
            (!rows.is_empty()).then_some(Group { adapter: group.adapter, rows })
        };
        Groups { groups: self.groups.iter().filter_map(among).collect() }
    }

    /// No row has an adapter.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Group<'a>> {
        self.groups.iter()
    }

    fn rows_of(&mut self, adapter: &'a Adapter) -> &mut Vec<usize> {
        let known = self.groups.iter().position(|group| std::ptr::eq(group.adapter, adapter));
        let index = known.unwrap_or_else(|| {
            self.groups.push(Group { adapter, rows: Vec::new() });
            self.groups.len() - 1
        });
        &mut self.groups[index].rows
    }
}
