//! The headers `traceparent` and `tracestate` of W3C Trace Context. Pure.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// Whose call this is: version, trace, span, flags.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What tracing systems add to it.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// What a `traceparent` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traceparent {
    /// Not all zeros.
    pub trace_id: [u8; 16],
    /// Not all zeros.
    pub span_id: [u8; 8],
    /// The lowest bit says whether the caller is sampled.
    pub flags: u8,
}

impl Traceparent {
    /// `version-trace_id-parent_id-flags`, as <https://www.w3.org/TR/trace-context/#traceparent-header> has it: a
    /// later version may append fields.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let mut fields = value.split(|byte| *byte == b'-');
        let version = hex::<1>(fields.next()?)?;
        let trace_id = hex::<16>(fields.next()?)?;
        let span_id = hex::<8>(fields.next()?)?;
        let [flags] = hex::<1>(fields.next()?)?;
        let complete = version != [0xff] && (version != [0] || fields.next().is_none());
        (complete && trace_id != [0; 16] && span_id != [0; 8]).then_some(Self { trace_id, span_id, flags })
    }

    /// The only one among `headers`: of several nobody knows which is right.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).into_iter();
        let only = values.next().filter(|_| values.next().is_none())?;
        Self::parse(only.as_bytes())
    }

    /// As the parent of a span, without the caller's `tracestate`.
    #[must_use]
    pub fn context(&self) -> SpanContext {
        self.with_state(TraceState::default())
    }

    fn with_state(&self, state: TraceState) -> SpanContext {
        let (trace_id, span_id) = (TraceId::from_bytes(self.trace_id), SpanId::from_bytes(self.span_id));
        SpanContext::new(trace_id, span_id, TraceFlags::new(self.flags), true, state)
    }
}

impl From<&SpanContext> for Traceparent {
    fn from(span: &SpanContext) -> Self {
        Self {
            trace_id: span.trace_id().to_bytes(),
            span_id: span.span_id().to_bytes(),
            flags: span.trace_flags().to_u8(),
        }
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        write!(out, "00-{}-{}-{:02x}", hex(&self.trace_id), hex(&self.span_id), self.flags)
    }
}

/// Who called, with its `tracestate`, if that can be read.
#[must_use]
pub fn extract(headers: &HeaderMap) -> Option<SpanContext> {
    let states = headers.get_all(TRACESTATE).into_iter().filter_map(|value| value.to_str().ok());
    let state = states.collect::<Vec<_>>().join(",").parse().unwrap_or_default();
    Some(Traceparent::of(headers)?.with_state(state))
}

/// Tells whoever is called that `span` calls; nothing if that is none.
pub fn inject(span: &SpanContext, headers: &mut HeaderMap) {
    if !span.is_valid() {
        return;
    }
    if let Ok(value) = HeaderValue::try_from(Traceparent::from(span).to_string()) {
        headers.insert(TRACEPARENT, value);
    }
    let state = span.trace_state().header();
    if let Ok(value) = HeaderValue::try_from(state)
        && !value.is_empty()
    {
        headers.insert(TRACESTATE, value);
    }
}

fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let is_hex = text.len() == 2 * N && data_encoding::HEXLOWER.decode_mut(text, &mut bytes).is_ok();
    is_hex.then_some(bytes)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[rstest]
    #[case(GOOD, true)]
    #[case("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", true)]
    #[case("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", false)]
    #[case("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false)]
    #[case("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", false)]
    #[case("00-00000000000000000000000000000000-b7ad6b7169203331-01", false)]
    #[case("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false)]
    #[case("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", false)]
    #[case("", false)]
    fn a_traceparent_is_taken_if_it_is_well_formed(#[case] header: &str, #[case] good: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, header.parse().unwrap());
        assert_eq!(Traceparent::of(&headers).is_some(), good);
        headers.append(TRACEPARENT, header.parse().unwrap());
        assert_eq!(Traceparent::of(&headers), None, "of two nobody knows which is right");
    }

    #[test]
    fn what_is_extracted_can_be_injected() {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, GOOD.parse().unwrap());
        headers.append(TRACESTATE, "a=b".parse().unwrap());
        headers.append(TRACESTATE, "c=d".parse().unwrap());
        let span = extract(&headers).unwrap();
        assert!(span.is_remote() && span.is_sampled());
        let mut passed = HeaderMap::new();
        inject(&span, &mut passed);
        assert_eq!(
            (passed[TRACEPARENT].as_bytes(), passed[TRACESTATE].as_bytes()),
            (GOOD.as_bytes(), &b"a=b,c=d"[..])
        );
        passed.clear();
        inject(&SpanContext::empty_context(), &mut passed);
        assert!(passed.is_empty());
    }
}
