//! Lists, page by page.

use serde::{Deserialize, Serialize};

use crate::api::error::ApiError;

/// Things in a page where the caller does not say.
const DEFAULT_LIMIT: usize = 100;
/// The most things in a page. Not a setting: it is part of the documented API.
const MAX_LIMIT: usize = 500;

/// Which page.
#[derive(Deserialize, utoipa::IntoParams, Default)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct PageParams {
    /// Things in the page: 1 to 500; 100 if absent.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
    /// `next` of the page before this one.
    pub cursor: Option<String>,
}

/// Things, in pages.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::api) struct PageOf<T> {
    /// The things.
    pub items: Vec<T>,
    /// The `cursor` of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl PageParams {
    /// How many things, within the bounds.
    pub(super) fn limit(&self) -> Result<usize, ApiError> {
        bounded(self.limit)
    }
}

impl<T> PageOf<T> {
    /// All there are: of what is bounded anyway.
    pub(super) fn all(items: Vec<T>) -> Self {
        Self { items, next: None }
    }

    /// A page out of one more than was asked for, if there is one more.
    pub(super) fn cut(mut items: Vec<T>, limit: usize, key: impl FnOnce(&T) -> String) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        let next = more.then(|| items.last().map(key)).flatten();
        Self { items, next }
    }
}

/// How many things in a page.
///
/// # Errors
///
/// Out of its bounds.
pub(super) fn bounded(limit: Option<usize>) -> Result<usize, ApiError> {
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    match (1..=MAX_LIMIT).contains(&limit) {
        true => Ok(limit),
        false => Err(ApiError::field("limit", format!("1 to {MAX_LIMIT}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_tells_where_the_next_begins() {
        let page = PageOf::cut(vec![1, 2, 3], 2, ToString::to_string);
        assert_eq!((page.items, page.next.as_deref()), (vec![1, 2], Some("2")));
        let page = PageOf::cut(vec![1, 2], 2, ToString::to_string);
        assert_eq!((page.items, page.next), (vec![1, 2], None));
    }
}
