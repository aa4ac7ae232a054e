//! Which calls have spans, in the words of `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`. One rule for the SDK and
//! for who asks before anything is made. Pure.

use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanContext, SpanKind, TraceContextExt as _, TraceId},
};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};

/// A rule; [`Sampling::default`] follows whoever called, and samples what begins here.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    root: Root,
    follows_parent: bool,
}

/// The rule without a parent.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Root {
    All,
    None,
    /// Trace ids whose last 63 bits are below, as all of OpenTelemetry has it: so services with the same share choose
    /// the same traces.
    Below(u64),
}

/// Why there is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable} {reason}")]
pub struct SamplingError {
    variable: &'static str,
    reason: &'static str,
}

const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
/// How many numbers 63 bits are.
const IDS: f64 = (1_u64 << 63) as f64;

impl Default for Sampling {
    fn default() -> Self {
        Self { root: Root::All, follows_parent: true }
    }
}

impl Sampling {
    /// The rule that the values of the two variables name; empty is as good as absent.
    ///
    /// # Errors
    /// Which variable is wrong, and what it may be.
    pub fn parse(sampler: &str, argument: &str) -> Result<Self, SamplingError> {
        let error = |variable, reason| SamplingError { variable, reason };
        let (rule, follows_parent) = match sampler.strip_prefix("parentbased_") {
            Some(rule) => (rule, true),
            None => (sampler, false),
        };
        let root = match rule {
            "" if !follows_parent => return Self::parse("parentbased_always_on", argument),
            "always_on" => Root::All,
            "always_off" => Root::None,
            "traceidratio" => Root::below(argument)?,
            _ => {
                return Err(error(
                    SAMPLER,
                    "is none of always_on, always_off, traceidratio, parentbased_always_on, \
                     parentbased_always_off and parentbased_traceidratio",
                ));
            }
        };
        if rule != "traceidratio" && !argument.is_empty() {
            return Err(error(
                ARGUMENT,
                "is for OTEL_TRACES_SAMPLER=traceidratio and parentbased_traceidratio only: set that, or leave it out",
            ));
        }
        Ok(Self { root, follows_parent })
    }

    /// Whether a call has spans; `parent_is_sampled` says it of who called, if that is known.
    #[must_use]
    pub(crate) fn samples(self, parent_is_sampled: Option<bool>, trace_id: TraceId) -> bool {
        match (parent_is_sampled, self.root) {
            (Some(is_sampled), _) if self.follows_parent => is_sampled,
            (_, Root::All) => true,
            (_, Root::None) => false,
            (_, Root::Below(bound)) => {
                let [.., a, b, c, d, e, f, g, h] = trace_id.to_bytes();
                u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1 < bound
            }
        }
    }
}

impl Root {
    fn below(share: &str) -> Result<Self, SamplingError> {
        let share = if share.is_empty() { Ok(1.0) } else { share.parse::<f64>() };
        match share {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 2^63")]
            Ok(share) if (0.0..=1.0).contains(&share) => Ok(Self::Below((share * IDS) as u64)),
            _ => Err(SamplingError {
                variable: ARGUMENT,
                reason: "is no share from 0 to 1, 0.01 for one call of a hundred",
            }),
        }
    }
}

impl ShouldSample for Sampling {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        _name: &str,
        _kind: &SpanKind,
        _attributes: &[KeyValue],
        _links: &[Link],
    ) -> SamplingResult {
        let parent = parent.map(|parent| parent.span().span_context().clone()).filter(SpanContext::is_valid);
        let is_sampled = self.samples(parent.as_ref().map(SpanContext::is_sampled), trace_id);
        SamplingResult {
            decision: if is_sampled { SamplingDecision::RecordAndSample } else { SamplingDecision::Drop },
            attributes: Vec::new(),
            trace_state: parent.map(|of| of.trace_state().clone()).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("", "", Ok((true, true, false)))]
    #[case("parentbased_always_on", "", Ok((true, true, false)))]
    #[case("parentbased_always_off", "", Ok((false, true, false)))]
    #[case("parentbased_traceidratio", "0", Ok((false, true, false)))]
    #[case("parentbased_traceidratio", "", Ok((true, true, false)))]
    #[case("always_on", "", Ok((true, true, true)))]
    #[case("always_off", "", Ok((false, false, false)))]
    #[case("traceidratio", "1.0", Ok((true, true, true)))]
    #[case("traceidratio", "0.000001", Ok((false, false, false)))]
    #[case("sometimes", "", Err(SAMPLER))]
    #[case("parentbased_", "", Err(SAMPLER))]
    #[case("traceidratio", "1.1", Err(ARGUMENT))]
    #[case("traceidratio", "-0.1", Err(ARGUMENT))]
    #[case("parentbased_traceidratio", "one", Err(ARGUMENT))]
    #[case("parentbased_traceidratio", "nan", Err(ARGUMENT))]
    #[case("", "0.01", Err(ARGUMENT))]
    fn a_rule_is_what_its_variables_say(
        #[case] sampler: &str,
        #[case] argument: &str,
        #[case] expected: Result<(bool, bool, bool), &str>,
    ) {
        let id = TraceId::from(u128::MAX);
        let rule = Sampling::parse(sampler, argument).map_err(|error| error.variable);
        let found = rule.map(|rule| {
            (rule.samples(None, id), rule.samples(Some(true), id), rule.samples(Some(false), id))
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn a_share_is_decided_by_the_id_as_the_sdk_does() {
        let (ours, sdk) = (
            Sampling::parse("traceidratio", "0.25").unwrap(),
            opentelemetry_sdk::trace::Sampler::TraceIdRatioBased(0.25),
        );
        let mut sampled = 0;
        for number in 0..10_000_u128 {
            let id = TraceId::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) | 1);
            let decision = sdk.should_sample(None, id, "", &SpanKind::Server, &[], &[]).decision;
            assert_eq!(ours.samples(None, id), decision == SamplingDecision::RecordAndSample);
            sampled += u32::from(ours.samples(None, id));
        }
        assert!((2_200..2_800).contains(&sampled), "{sampled}");
    }
}
