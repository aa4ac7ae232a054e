//! The routes that an API names itself: an OpenAPI document or a list, read at the start. Pure.

mod list;
mod openapi;

use std::{borrow::Cow, collections::HashSet};

use crate::template::{Place, Segment, Template, TemplateError, Templates, segments, value};

/// Largest document, in bytes.
const DOCUMENT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Routes by their templates; empty by default. Parsed from an OpenAPI 3 document, JSON or YAML, or from a list.
///
/// A line of a list is `METHOD /template [parameter]`: the method, or `*` for every one; a path in which a part in
/// braces stands for any text within its segment; and which parameter is the resource id, if it is not the last
/// one. Empty lines and lines that start with # do not count.
///
/// Of a document `paths` count, each under the path of every one of its `servers`. `x-keymeter-resource-id`, in a
/// path item or an operation, names the parameter that is the resource id, if it is not the last one.
///
/// Paths fit templates as in [`RequiredScopes`](crate::RequiredScopes). A path that fits with another method only
/// has that route too.
#[derive(Debug, Clone, Default)]
pub struct RouteTemplates {
    templates: Templates<Named>,
    names: HashSet<String>,
}

/// A route that was named.
#[derive(Debug, Clone)]
struct Named {
    route: String,
    template: Template,
    resource: Option<Place>,
}

/// Why a text names no routes. Each says where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum RouteTemplatesError {
    /// A line of a list is none.
    #[error("line {0} is not `METHOD /template [parameter]`, such as `GET /v1/orders/{{order_id}}`")]
    Line(usize),
    /// A template is none.
    #[error("{place}: {reason}")]
    Template {
        /// The line, or the path in the document.
        place: String,
        /// What is wrong with it.
        reason: TemplateError,
    },
    /// Two are for the same calls.
    #[error("{0} is for the same method and path as an earlier one; keep one of them")]
    Twice(String),
    /// The resource id is to be a parameter that is not there.
    #[error("{place}: there is no parameter {{{name}}} for the resource id; name one of the template")]
    Parameter {
        /// The line, or the path in the document.
        place: String,
        /// The name that no parameter has.
        name: String,
    },
    /// The document is broken.
    #[error("it is no OpenAPI document: {0}")]
    Document(String),
    /// The document is of another kind.
    #[error("it is not OpenAPI 3.x (`openapi: 3.…` is missing); convert it, or write a list of routes")]
    Version,
    /// Nothing is in it.
    #[error("it names no routes; leave the setting out, or fill the file")]
    Empty,
    /// The document is too large.
    #[error("it has more than {DOCUMENT_BYTES_MAX} bytes; keep its `openapi`, `servers` and `paths` only")]
    Large,
}

impl std::str::FromStr for RouteTemplates {
    type Err = RouteTemplatesError;

    fn from_str(text: &str) -> Result<Self, RouteTemplatesError> {
        if text.len() > DOCUMENT_BYTES_MAX {
            return Err(RouteTemplatesError::Large);
        }
        let mut routes = Self::default();
        if list::is_list(text) {
            list::read(text, &mut routes)?;
        } else {
            openapi::read(text, &mut routes)?;
        }
        if routes.is_empty() { Err(RouteTemplatesError::Empty) } else { Ok(routes) }
    }
}

impl RouteTemplates {
    /// How many different routes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The route of a call and its resource id (empty if the template has no parameter); `None` if no template
    /// fits.
    #[must_use]
    pub fn of(&self, method: &str, path: &str) -> Option<(&str, String)> {
        let segments = segments(path);
        self.of_segments(method, &segments).map(|(route, resource_id)| (route, resource_id.into_owned()))
    }

    pub(crate) fn of_segments<'a, 's>(
        &'a self,
        method: &str,
        segments: &'s [Segment<'_>],
    ) -> Option<(&'a str, Cow<'s, str>)> {
        let found = self.templates.find(method, segments).or_else(|| self.templates.find_path(segments));
        found.map(|found| {
            let resource_id = found.resource.map(|place| value(&found.template, place, segments));
            (found.route.as_str(), resource_id.unwrap_or_default())
        })
    }

    /// Adds a route; `place` is where it was read.
    fn add(
        &mut self,
        place: &dyn Fn() -> String,
        method: Option<&str>,
        route: &str,
        resource: Option<&str>,
    ) -> Result<(), RouteTemplatesError> {
        let template: Template =
            route.parse().map_err(|reason| RouteTemplatesError::Template { place: place(), reason })?;
        let missing = |name: &str| RouteTemplatesError::Parameter { place: place(), name: name.to_owned() };
        let resource = match resource {
            Some(name) => Some(template.parameter(name).ok_or_else(|| missing(name))?),
            None => template.last_parameter(),
        };
        let named = Named { route: route.to_owned(), template: template.clone(), resource };
        if !self.templates.insert(method, &template, named) {
            return Err(RouteTemplatesError::Twice(place()));
        }
        self.names.insert(route.to_owned());
        Ok(())
    }
}
