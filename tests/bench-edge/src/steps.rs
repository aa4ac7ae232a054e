//! The steps of a request's path, each call timed by itself: the median is what a call costs on a core that nothing
//! else disturbs.

use std::{hint::black_box, time::Instant};

use edge_layer::bench::{Capturing, Limiting, Verifying};
use figures::{Figures, say};

/// Keys in the table.
const KEYS: usize = 1_000_000;
/// Calls of each step that are timed.
const CALLS: usize = 200_000;

pub(crate) fn measure(figures: &Figures) -> anyhow::Result<()> {
    say(&format!("steps of a call, {KEYS} keys loaded, {CALLS} calls each"));
    let verifying = Verifying::new(KEYS);
    let verify = |headers| (black_box(verifying.verify(&headers)), headers);
    note(figures, "verify", |number| verifying.hit(number), verify);
    note(figures, "verify_miss", |_| verifying.miss(), verify);
    drop(verifying);
    let folder = tempfile::tempdir()?;
    let limiting = Limiting::new(KEYS, folder.path());
    note(figures, "limit", |number| limiting.key(number), |key| (black_box(limiting.check(&key)), key));
    drop(limiting);
    let folder = tempfile::tempdir()?;
    let capturing = Capturing::new(folder.path());
    let request = |number| capturing.request(number);
    note(figures, "capture", request, |request| (capturing.record(&request), request).1);
    // Verification, capture, and all that the layer does around them, before a service that answers at once.
    note(figures, "layer", request, |request| black_box(capturing.call(request)));
    Ok(())
}

/// Times `step` on each input by itself; what the clock costs is taken off.
fn note<I, O>(figures: &Figures, name: &str, input: impl Fn(usize) -> I, step: impl Fn(I) -> O) {
    let clock_ns = percentile((0..CALLS).map(|_| nanos(Instant::now())).collect(), 50);
    let times: Vec<u64> = (0..CALLS)
        .map(|number| {
            let input = input(number);
            let began = Instant::now();
            let output = step(input);
            let time = nanos(began);
            drop(output);
            time
        })
        .collect();
    for percent in [50, 99] {
        #[expect(clippy::cast_precision_loss, reason = "a figure to be read")]
        let value = percentile(times.clone(), percent).saturating_sub(clock_ns) as f64;
        figures.note(&format!("{name}_p{percent}_ns"), value);
    }
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn percentile(mut times: Vec<u64>, percent: usize) -> u64 {
    times.sort_unstable();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}
