//! The resource id that an answer names itself, in the place of the one in the path. Pure.

use std::borrow::Cow;

use http::{HeaderName, Response};

use crate::route::resource_id;

/// What a call was about, as its handler knows it: put it into the extensions of the answer, and it is on record in
/// the place of the id in the path. Cut at 256 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceId(pub String);

/// The id that an answer names: in its extensions, or in a header. `None` if it names none.
pub(crate) fn named<'a, B>(answer: &'a Response<B>, header: Option<&HeaderName>) -> Option<Cow<'a, str>> {
    if let Some(ResourceId(id)) = answer.extensions().get() {
        return Some(resource_id(id.as_bytes()));
    }
    let value = answer.headers().get(header?)?;
    let id = resource_id(value.as_bytes());
    (!id.is_empty()).then_some(id)
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;

    #[test]
    fn an_answer_names_its_resource() {
        let header = HeaderName::from_static("x-order-id");
        let mut answer = Response::builder().header("x-order-id", "o-1").body(()).unwrap();
        assert_eq!(named(&answer, Some(&header)), Some("o-1".into()));
        assert_eq!(named(&answer, None), None);
        assert_eq!(named(&answer, Some(&HeaderName::from_static("x-else"))), None);
        answer.headers_mut().insert("x-order-id", "".parse().unwrap());
        assert_eq!(named(&answer, Some(&header)), None);
        answer.headers_mut().insert("x-order-id", "é".repeat(200).parse().unwrap());
        assert_eq!(named(&answer, Some(&header)), Some("é".repeat(128).into()));
        answer.extensions_mut().insert(ResourceId("mine".into()));
        assert_eq!(named(&answer, Some(&header)), Some("mine".into()));
    }
}
