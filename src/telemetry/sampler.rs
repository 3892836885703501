//! Which traces are recorded: the standard samplers of `OTEL_TRACES_SAMPLER`. Pure. It decides before a span is opened, so a trace that is not recorded costs only the decision.
//!
//! The ratio sampler decides by the 56 least significant bits of the trace id, which W3C Trace
//! Context level 2 (section 3.3.1) has be random, and by the threshold of OpenTelemetry's
//! probability sampling. The SDK's own looks at the upper 63 of the lower 64 bits: of a trace id that
//! is a UUID (RFC 9562) the first two of those are always `10`, so that it would record no derived
//! trace at all up to a ratio of one half.

use opentelemetry::trace::TraceId;

/// Bits of a trace id that are random.
const RANDOM_BITS: u32 = 56;

/// A sampler: what becomes of a root, and whether a parent's decision comes before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sampler {
    pub(super) root: Root,
    /// `parentbased_*`: a span with a parent is recorded if and only if the parent is.
    pub(super) parent_based: bool,
}

/// What becomes of a trace that begins here.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Root {
    AlwaysOn,
    AlwaysOff,
    /// The share of traces that is recorded, from 0 to 1.
    Ratio(f64),
}

impl Default for Sampler {
    /// `parentbased_always_on`, the specification's default.
    fn default() -> Self {
        Self {
            root: Root::AlwaysOn,
            parent_based: true,
        }
    }
}

impl Sampler {
    /// Whether a span of `trace` is recorded; `parent` is whether its parent is, `None` of a root.
    pub(super) fn records(&self, parent: Option<bool>, trace: TraceId) -> bool {
        match (self.parent_based, parent, self.root) {
            (true, Some(recorded), _) => recorded,
            (_, _, Root::AlwaysOn) => true,
            (_, _, Root::AlwaysOff) => false,
            (_, _, Root::Ratio(ratio)) => randomness(trace) >= threshold(ratio),
        }
    }
}

/// The trace id's random part.
fn randomness(trace: TraceId) -> u64 {
    let [.., a, b, c, d, e, f, g] = trace.to_bytes();
    u64::from_be_bytes([0, a, b, c, d, e, f, g])
}

/// The randomness from which on a trace is recorded.
fn threshold(ratio: f64) -> u64 {
    let all = 1u64 << RANDOM_BITS;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "both are powers of two or below, and the value is clamped"
    )]
    let rejected = ((1.0 - ratio.clamp(0.0, 1.0)) * all as f64).round() as u64;
    rejected.min(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Builder;

    use super::*;

    fn ratio(ratio: f64) -> Sampler {
        Sampler {
            root: Root::Ratio(ratio),
            parent_based: true,
        }
    }

    #[test]
    fn a_ratio_holds_for_trace_ids_that_are_uuids_of_version_7() {
        for wanted in [0.01, 0.1, 0.5, 0.9] {
            let sampler = ratio(wanted);
            let total = 20_000u32;
            let recorded = (0..total).filter(|number| {
                use sha2::Digest as _;
                let hash: [u8; 32] = sha2::Sha256::digest(number.to_be_bytes()).into();
                let random: [u8; 10] = hash[..10].try_into().unwrap();
                let id = Builder::from_unix_timestamp_millis(1_700_000_000_000, &random);
                sampler.records(None, TraceId::from(id.into_uuid().as_u128()))
            });
            let share = f64::from(u32::try_from(recorded.count()).unwrap()) / f64::from(total);
            assert!((share - wanted).abs() < 0.02, "{share} and not {wanted}");
        }
    }

    #[test]
    fn a_parents_decision_holds_only_where_the_sampler_is_based_on_it() {
        let id = TraceId::from(1);
        for (root, alone) in [
            (Root::AlwaysOn, true),
            (Root::AlwaysOff, false),
            (Root::Ratio(0.5), false),
            (Root::Ratio(1.0), true),
        ] {
            let based = Sampler {
                root,
                parent_based: true,
            };
            assert_eq!(based.records(None, id), alone);
            assert!(based.records(Some(true), id));
            assert!(!based.records(Some(false), id));
            let sole = Sampler {
                root,
                parent_based: false,
            };
            assert_eq!(sole.records(Some(!alone), id), alone);
        }
    }

    proptest! {
        #[test]
        fn what_a_ratio_records_every_larger_one_records(id: u128, low in 0.0..=1.0f64, more in 0.0..=1.0f64) {
            let high: f64 = (low + more).min(1.0);
            let id = TraceId::from(id);
            prop_assert!(!ratio(low).records(None, id) || ratio(high).records(None, id));
            prop_assert!(ratio(1.0).records(None, id));
            prop_assert!(!ratio(0.0).records(None, id));
        }
    }
}
