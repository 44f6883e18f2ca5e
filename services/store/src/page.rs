//! Lists in pages by key, not by offset: a page costs the same wherever it lies, and rows that come or go between two
//! pages shift nothing.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::StoreError;

/// Which page of a list. `token` is empty for the first one, else what the page before gave in `next_page_token`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Rows; 1 or more.
    pub size: u16,
    pub token: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageOf<T> {
    pub items: Vec<T>,
    /// Empty on the last page.
    pub next_page_token: String,
}

impl Page {
    pub fn first(size: u16) -> Self {
        Self { size, token: String::new() }
    }

    /// The key behind which this page begins; `None` for the first. `list` names the list that the token must be of.
    pub(crate) fn after(&self, list: &str) -> Result<Option<String>, StoreError> {
        if self.token.is_empty() {
            return Ok(None);
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&self.token).map_err(|_| StoreError::InvalidPageToken)?;
        let text = String::from_utf8(bytes).map_err(|_| StoreError::InvalidPageToken)?;
        match text.split_once('\n') {
            Some((of, key)) if of == list => Ok(Some(key.to_owned())),
            _ => Err(StoreError::InvalidPageToken),
        }
    }

    /// One row more than fits, to see whether there is a next page.
    pub(crate) fn fetch(&self) -> i64 {
        i64::from(self.size.max(1)) + 1
    }

    /// Cuts what [`Page::fetch`] brought to this page; `key` gives the key of its last row.
    pub(crate) fn cut<T>(&self, list: &str, mut items: Vec<T>, key: impl FnOnce(&T) -> String) -> PageOf<T> {
        let size = usize::from(self.size.max(1));
        let more = items.len() > size;
        items.truncate(size);
        let next_page_token = match items.last() {
            Some(last) if more => BASE64_URL_SAFE_NO_PAD.encode(format!("{list}\n{}", key(last))),
            _ => String::new(),
        };
        PageOf { items, next_page_token }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_behind_the_last_row_of_its_own_list_only() {
        let first = Page::first(2);
        let page = first.cut("letters", vec!["a", "b", "c"], |row| (*row).to_owned());
        assert_eq!(page.items, ["a", "b"]);
        let next = Page { size: 2, token: page.next_page_token };
        assert_eq!(next.after("letters").unwrap().as_deref(), Some("b"));
        assert!(matches!(next.after("digits"), Err(StoreError::InvalidPageToken)));
        for token in ["?", "YWJj", "!!"] {
            let page = Page { size: 2, token: token.to_owned() };
            assert!(matches!(page.after("letters"), Err(StoreError::InvalidPageToken)), "{token}");
        }
    }

    #[test]
    fn the_last_page_has_no_token() {
        assert_eq!(Page::first(2).cut("letters", vec!["a", "b"], |row| (*row).to_owned()).next_page_token, "");
        assert_eq!(Page::first(2).cut("letters", Vec::<&str>::new(), |row| (*row).to_owned()).next_page_token, "");
    }
}
