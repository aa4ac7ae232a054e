//! Templates of paths, such as /v1/orders/{id}, and which of many fits a path. Pure.
//!
//! Paths are compared as an API may read them: decoded, without empty segments and dots. A path is walked down a
//! tree of segments, so a lookup costs by the length of the path, not by the number of templates.

use std::{borrow::Cow, collections::BTreeMap};

/// Longest template, in bytes: what a route of an event may have.
pub(crate) const TEMPLATE_BYTES_MAX: usize = 1024;
/// Most segments of a template.
const SEGMENTS_MAX: usize = 64;

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It is relative.
    #[error("a template starts with /")]
    Relative,
    /// Braces are not closed, empty or side by side.
    #[error("a parameter is a name in braces, such as {{id}}, with text or a slash between two")]
    Braces,
    /// Something that never is in a decoded path.
    #[error("a template has no `?`, `#`, `%`, spaces or segments of dots; write characters as they are")]
    Characters,
    /// Two parameters of one name.
    #[error("parameter {{{0}}} is there twice; give one another name")]
    Twice(String),
    /// Too long.
    #[error("a template has at most {TEMPLATE_BYTES_MAX} bytes and {SEGMENTS_MAX} segments")]
    Long,
}

/// A path in which parts in braces stand for any text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    segments: Vec<Part>,
    /// The parameters in their order, each with its place.
    parameters: Vec<(String, Place)>,
}

/// Where a parameter stands: in which segment, and there as which of its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    segment: usize,
    index: usize,
}

/// What one segment has to be, in the order in which they count.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    /// What stands before, between and after parameters.
    Mixed(Mixed),
    /// One parameter alone.
    Any,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mixed(Vec<Box<str>>);

impl std::str::FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let path = text.strip_prefix('/').ok_or(TemplateError::Relative)?;
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(TemplateError::Long);
        }
        if text.contains(|char: char| "?#%".contains(char) || char.is_whitespace() || char.is_control()) {
            return Err(TemplateError::Characters);
        }
        let mut template = Self { segments: Vec::new(), parameters: Vec::new() };
        for segment in path.split('/').filter(|segment| !segment.is_empty()) {
            let (part, names) = part(segment)?;
            for (index, name) in names.into_iter().enumerate() {
                if template.parameter(&name).is_some() {
                    return Err(TemplateError::Twice(name));
                }
                template.parameters.push((name, Place { segment: template.segments.len(), index }));
            }
            template.segments.push(part);
        }
        if template.segments.len() > SEGMENTS_MAX { Err(TemplateError::Long) } else { Ok(template) }
    }
}

impl Template {
    /// The place of the parameter with this name.
    pub(crate) fn parameter(&self, name: &str) -> Option<Place> {
        self.parameters.iter().find(|(own, _)| own == name).map(|(_, place)| *place)
    }

    /// The place of the last parameter.
    pub(crate) fn last_parameter(&self) -> Option<Place> {
        self.parameters.last().map(|(_, place)| *place)
    }
}

/// What a segment of a template stands for, and the names in it.
fn part(segment: &str) -> Result<(Part, Vec<String>), TemplateError> {
    if matches!(segment, "." | "..") {
        return Err(TemplateError::Characters);
    }
    let (mut literals, mut names, mut rest) = (Vec::<Box<str>>::new(), Vec::new(), segment);
    while let Some((before, after)) = rest.split_once('{') {
        let (name, behind) = after.split_once('}').ok_or(TemplateError::Braces)?;
        let touches_another = before.is_empty() && !literals.is_empty();
        if name.is_empty() || name.contains('{') || before.contains('}') || touches_another {
            return Err(TemplateError::Braces);
        }
        literals.push(before.into());
        names.push(name.to_owned());
        rest = behind;
    }
    if rest.contains('}') {
        return Err(TemplateError::Braces);
    }
    literals.push(rest.into());
    let part = match (names.len(), segment.starts_with('{') && segment.ends_with('}')) {
        (0, _) => Part::Literal(segment.into()),
        (1, true) => Part::Any,
        _ => Part::Mixed(Mixed(literals)),
    };
    Ok((part, names))
}

impl Mixed {
    /// What stands for the parameters, each as short as can be; `None` if the segment is another.
    fn capture<'a>(&self, segment: &'a [u8]) -> Option<Vec<&'a [u8]>> {
        let (first, others) = self.0.split_first()?;
        let (last, between) = others.split_last()?;
        let mut rest = segment.strip_prefix(first.as_bytes())?.strip_suffix(last.as_bytes())?;
        let mut values = Vec::with_capacity(others.len());
        for literal in between {
            let literal = literal.as_bytes();
            // A value has at least one byte.
            let at = rest.windows(literal.len()).skip(1).position(|window| window == literal)? + 1;
            values.push(&rest[..at]);
            rest = &rest[at + literal.len()..];
        }
        values.push(rest);
        (!rest.is_empty()).then_some(values)
    }

    fn literal_bytes(&self) -> usize {
        self.0.iter().map(|literal| literal.len()).sum()
    }
}

/// One segment of a path.
#[derive(Debug, Clone)]
pub(crate) struct Segment<'a> {
    /// As it was sent.
    sent: &'a str,
    /// As an API may read it.
    read: Cow<'a, [u8]>,
}

/// The segments of a path that count: without empty ones and dots.
pub(crate) fn segments(path: &str) -> Vec<Segment<'_>> {
    let mut segments = Vec::with_capacity(8);
    for sent in path.split('/') {
        let read = decoded(sent);
        match &*read {
            b"" | b"." => {}
            b".." => drop(segments.pop()),
            _ => segments.push(Segment { sent, read }),
        }
    }
    segments
}

/// What stands in a path for a parameter of a template that fits it: as it was sent, if that can be told.
pub(crate) fn value<'a>(template: &Template, place: Place, segments: &'a [Segment<'_>]) -> Cow<'a, str> {
    let Some(segment) = segments.get(place.segment) else { return Cow::Borrowed("") };
    match template.segments.get(place.segment) {
        Some(Part::Mixed(mixed)) => {
            let captured = mixed.capture(segment.sent.as_bytes()).or_else(|| mixed.capture(&segment.read));
            let value = captured.and_then(|values| values.get(place.index).copied()).unwrap_or_default();
            String::from_utf8_lossy(value)
        }
        _ => Cow::Borrowed(segment.sent),
    }
}

fn decoded(segment: &str) -> Cow<'_, [u8]> {
    if !segment.contains('%') {
        return Cow::Borrowed(segment.as_bytes());
    }
    let (mut bytes, mut rest) = (Vec::with_capacity(segment.len()), segment.as_bytes());
    while let [first, after @ ..] = rest {
        let escaped = (*first == b'%').then(|| after.first_chunk::<2>()).flatten();
        let byte = escaped.and_then(|hex| data_encoding::HEXUPPER_PERMISSIVE.decode(hex).ok());
        bytes.push(byte.as_ref().map_or(*first, |byte| byte[0]));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    Cow::Owned(bytes)
}

/// Values under templates and methods.
#[derive(Debug, Clone)]
pub(crate) struct Templates<T> {
    root: Node<T>,
    len: usize,
}

#[derive(Debug, Clone)]
struct Node<T> {
    literals: BTreeMap<Box<[u8]>, Self>,
    /// Those with more literal text first.
    mixed: Vec<(Mixed, Self)>,
    any: Option<Box<Self>>,
    /// By method; `None` is every one.
    ends: Vec<(Option<Box<str>>, T)>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { literals: BTreeMap::new(), mixed: Vec::new(), any: None, ends: Vec::new() }
    }
}

impl<T> Default for Templates<T> {
    fn default() -> Self {
        Self { root: Node::default(), len: 0 }
    }
}

impl<T> Templates<T> {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds a value for the calls of a method (`None` is every one) that fit a template. `false`, and no change,
    /// if there is one for the same calls; how parameters are called makes no difference.
    #[must_use]
    pub(crate) fn insert(&mut self, method: Option<&str>, template: &Template, value: T) -> bool {
        let node = template.segments.iter().fold(&mut self.root, |node, part| node.child(part));
        if node.ends.iter().any(|(own, _)| own.as_deref() == method) {
            return false;
        }
        node.ends.push((method.map(Into::into), value));
        self.len += 1;
        true
    }

    /// What a call finds. Of several templates that fit, the one with the earlier literal segment counts; at one
    /// template the method itself counts before every method. `HEAD` finds what `GET` does unless there is
    /// something for `HEAD` itself.
    pub(crate) fn find(&self, method: &str, segments: &[Segment<'_>]) -> Option<&T> {
        let find = |method: &str| self.root.find(&|node| node.end(method), segments);
        if method != "HEAD" {
            return find(method).map(|(_, value)| value);
        }
        let own = find("HEAD").filter(|(method, _)| method.is_some());
        own.or_else(|| find("GET")).map(|(_, value)| value)
    }

    /// What a call would find if it had another method.
    pub(crate) fn find_path(&self, segments: &[Segment<'_>]) -> Option<&T> {
        self.root.find(&|node| node.ends.first(), segments).map(|(_, value)| value)
    }
}

type End<T> = (Option<Box<str>>, T);

impl<T> Node<T> {
    fn child(&mut self, part: &Part) -> &mut Self {
        match part {
            Part::Literal(literal) => self.literals.entry(literal.as_bytes().into()).or_default(),
            Part::Any => self.any.get_or_insert_default(),
            Part::Mixed(mixed) => {
                if !self.mixed.iter().any(|(own, _)| own == mixed) {
                    self.mixed.push((mixed.clone(), Self::default()));
                    self.mixed.sort_by_key(|(own, _)| std::cmp::Reverse(own.literal_bytes()));
                }
                let (_, node) = self.mixed.iter_mut().find(|(own, _)| own == mixed).expect("it is there");
                node
            }
        }
    }

    fn end(&self, method: &str) -> Option<&End<T>> {
        let of = |wanted: Option<&str>| self.ends.iter().find(|(own, _)| own.as_deref() == wanted);
        of(Some(method)).or_else(|| of(None))
    }

    /// The first end that `choose` takes, in the order in which templates count. Each node is seen at most once.
    fn find<'a>(
        &'a self,
        choose: &impl Fn(&'a Self) -> Option<&'a End<T>>,
        segments: &[Segment<'_>],
    ) -> Option<&'a End<T>> {
        let Some((segment, rest)) = segments.split_first() else { return choose(self) };
        let literal = self.literals.get(&*segment.read);
        let mixed = self.mixed.iter().filter(|(own, _)| own.capture(&segment.read).is_some());
        let children = literal.into_iter().chain(mixed.map(|(_, node)| node)).chain(self.any.as_deref());
        children.into_iter().find_map(|child| child.find(choose, rest))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn templates(list: &[&'static str]) -> Templates<&'static str> {
        let mut templates = Templates::default();
        for text in list {
            assert!(templates.insert(None, &text.parse().unwrap(), *text), "{text}");
        }
        templates
    }

    #[rstest]
    #[case("/reports/7.pdf", Some("/reports/{id}.pdf"))]
    #[case("/reports/7.pdf.pdf", Some("/reports/{id}.pdf"))]
    #[case("/reports/.pdf", Some("/reports/{id}"))]
    #[case("/reports/latest.pdf", Some("/reports/latest.pdf"))]
    #[case("/reports/7%2Epdf", Some("/reports/{id}.pdf"))]
    #[case("/compare/a...b", Some("/compare/{base}...{head}"))]
    #[case("/compare/...b", None)]
    #[case("/compare/a...", None)]
    #[case("/at/1,2", Some("/at/{x},{y}"))]
    #[case("/at/v1,2", Some("/at/v{x},{y}"))]
    #[case("/a/b/d", Some("/a/{x}/d"))]
    #[case("/a/b/c", Some("/a/b/c"))]
    #[case("/a/b/e", None)]
    fn the_most_literal_template_counts(#[case] path: &str, #[case] expected: Option<&str>) {
        let templates = templates(&[
            "/reports/{id}",
            "/reports/{id}.pdf",
            "/reports/latest.pdf",
            "/compare/{base}...{head}",
            "/at/{x},{y}",
            "/at/v{x},{y}",
            "/a/{x}/d",
            "/a/b/c",
        ]);
        assert_eq!(templates.find("GET", &segments(path)).copied(), expected);
    }

    #[rstest]
    #[case("/o/{a}/i/{b}", "/o/1/i/2", "a", "1")]
    #[case("/o/{a}/i/{b}", "/o/1//./i/x%2Fy/", "b", "x%2Fy")]
    #[case("/r/{id}.{kind}", "/r/7.tar.gz", "id", "7")]
    #[case("/r/{id}.{kind}", "/r/7.tar.gz", "kind", "tar.gz")]
    #[case("/r/{id}-x", "/r/7%2Dx", "id", "7")]
    fn parameters_have_values(
        #[case] template: &str,
        #[case] path: &str,
        #[case] name: &str,
        #[case] expected: &str,
    ) {
        let template: Template = template.parse().unwrap();
        assert_eq!(value(&template, template.parameter(name).unwrap(), &segments(path)), expected);
        assert_eq!(template.parameter("nobody"), None);
    }

    #[rstest]
    #[case("v1", TemplateError::Relative)]
    #[case("/{", TemplateError::Braces)]
    #[case("/{}", TemplateError::Braces)]
    #[case("/a}", TemplateError::Braces)]
    #[case("/{a}{b}", TemplateError::Braces)]
    #[case("/{{a}}", TemplateError::Braces)]
    #[case("/a?b", TemplateError::Characters)]
    #[case("/%61", TemplateError::Characters)]
    #[case("/a/../b", TemplateError::Characters)]
    #[case("/{a}/{a}", TemplateError::Twice("a".into()))]
    fn others_are_none(#[case] text: &str, #[case] error: TemplateError) {
        assert_eq!(text.parse::<Template>(), Err(error));
    }

    #[test]
    fn lengths_are_bounded() {
        assert!("/a".repeat(64).parse::<Template>().is_ok());
        assert_eq!("/a".repeat(65).parse::<Template>(), Err(TemplateError::Long));
        assert_eq!(format!("/{}", "a".repeat(1024)).parse::<Template>(), Err(TemplateError::Long));
    }

    #[test]
    fn names_do_not_tell_templates_apart() {
        let mut templates = templates(&["/a/{x}"]);
        assert!(!templates.insert(None, &"/a/{y}".parse().unwrap(), ""));
        assert!(templates.insert(Some("GET"), &"/a/{y}".parse().unwrap(), "get"));
        assert_eq!(templates.find("HEAD", &segments("/a/1")), Some(&"get"));
        assert_eq!((templates.find("PUT", &segments("/a/1")), templates.len()), (Some(&"/a/{x}"), 2));
        assert_eq!(templates.find_path(&segments("/a")), None);
    }
}
